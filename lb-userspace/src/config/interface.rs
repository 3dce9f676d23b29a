//! An interface: its name alone, or a table.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// An interface that packets come in by. Written as a name or as a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Interface {
    /// The kernel's name.
    pub name: String,
    /// How the program is attached.
    #[serde(default)]
    pub xdp: XdpMode,
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the network stack: slow, works with every driver.
    Generic,
}

impl Serialize for Interface {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Interface::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Interface {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Interface, D::Error> {
        // By hand: an untagged enum's errors do not say which field is wrong.
        deserializer.deserialize_any(NameOrTable)
    }
}

struct NameOrTable;

impl<'de> Visitor<'de> for NameOrTable {
    type Value = Interface;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a name such as "eth0" or a table such as { name = "eth0", xdp = "native" }"#)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Interface, E> {
        Ok(Interface {
            name: name.to_owned(),
            xdp: XdpMode::Auto,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Interface, A::Error> {
        // The derived one, which `remote` makes inherent.
        Interface::deserialize(MapAccessDeserializer::new(map))
    }
}
