//! Plots, as SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Colours of the series, in their order; those of Okabe and Ito, whom the colour-blind can
/// tell apart.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];
const FONT: (&str, i32) = ("sans-serif", 14);
/// Height of a bar, in pixels, and of what is above and below all of them.
const BAR: f64 = 18.0;
const FRAME: f64 = 130.0;

/// Horizontal bars on a logarithmic scale.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    /// What the axis says.
    pub(crate) unit: &'a str,
    /// Names of the bars of a group, for the legend.
    pub(crate) series: &'a [&'a str],
    /// From top to bottom, each with a value of every series.
    pub(crate) groups: &'a [(String, Vec<f64>)],
}

impl Bars<'_> {
    /// The plot.
    ///
    /// # Errors
    /// It cannot be drawn.
    pub(crate) fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg)
            .map_err(|error| anyhow!("{}: {error}", self.title))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let (groups, bars) = (self.groups.len() as f64, self.series.len() as f64);
        let height = FRAME + groups * (bars + 1.0) * BAR;
        let area = SVGBackend::with_string(svg, (900, height as u32)).into_drawing_area();
        area.fill(&WHITE)?;
        let values = || {
            self.groups
                .iter()
                .flat_map(|(_, values)| values.iter().copied())
        };
        let least = values().fold(f64::MAX, f64::min) / 3.0;
        let most = values().fold(f64::MIN, f64::max) * 2.0;
        let longest = self.groups.iter().map(|(name, _)| name.len());
        // Seven pixels a letter or so.
        let names = (longest.max().unwrap_or(0) * 7 + 30).max(190);
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(45)
            .y_label_area_size(names as u32)
            .build_cartesian_2d((least..most).log_scale(), 0.0..groups)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc(self.unit)
            .label_style(FONT)
            .draw()?;
        for (number, name) in self.series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let tall = 1.0 / (bars + 1.0);
            let bar = self.groups.iter().enumerate().map(|(group, (_, values))| {
                let top = groups - group as f64 - tall * (0.5 + number as f64);
                let bar = [(least, top), (values[number], top - 0.9 * tall)];
                Rectangle::new(bar, colour.filled())
            });
            chart.draw_series(bar)?.label(*name).legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled())
            });
            chart.draw_series(self.groups.iter().enumerate().map(|(group, (_, values))| {
                let top = groups - group as f64 - tall * (0.6 + number as f64);
                let text = format!(" {}", short(values[number]));
                Text::new(text, (values[number], top), ("sans-serif", 12))
            }))?;
        }
        for (group, (name, _)) in self.groups.iter().enumerate() {
            let middle = groups - group as f64 - 0.5;
            let (_, y) = chart.backend_coord(&(least, middle));
            area.draw(&Text::new(name.as_str(), (20, y - 7), FONT))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .label_font(FONT)
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// Three digits, or all of a larger number.
fn short(value: f64) -> String {
    match value {
        value if value < 9.95 => format!("{value:.2}"),
        value if value < 99.5 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}
