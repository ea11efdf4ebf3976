//! The live market on standard output: a view, lines, or JSON.

use super::{screen, text};
use crate::daemon::sandbox::live::{Event, LiveSettings, Scene, Told, run_live};
use crate::runtime::Shutdown;
use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A view that is drawn again and again.
    Screen,
    /// Lines.
    Plain,
    /// An object per line.
    Json,
}

/// Events that the view keeps.
const KEPT: usize = 50;

pub(super) async fn execute(settings: &LiveSettings, form: Form) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    shutdown.on_signals()?;
    let mut printer = Printer::new(form)?;
    let mut failed = Ok(());
    let outcome = run_live(settings, &shutdown, |told| {
        if failed.is_ok() {
            failed = printer.print(&told);
            // Nobody can read it any more: the market ends in order.
            if failed.is_err() {
                shutdown.trigger();
            }
        }
    })
    .await;
    drop(printer);
    outcome?;
    match failed {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) => {
            Ok(())
        }
        other => other,
    }
}

/// Prints a line, whoever reads it.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())?;
    Ok(())
}

struct Printer {
    form: Form,
    /// Restores the terminal when it is dropped.
    screen: Option<screen::Screen>,
    recent: VecDeque<String>,
    /// Height at which the last summary was printed.
    summary: Option<u32>,
    last: Option<Box<Scene>>,
}

impl Printer {
    fn new(form: Form) -> anyhow::Result<Printer> {
        let screen = if form == Form::Screen { Some(screen::Screen::enter()?) } else { None };
        Ok(Printer { form, screen, recent: VecDeque::new(), summary: None, last: None })
    }

    fn print(&mut self, told: &Told) -> anyhow::Result<()> {
        match self.form {
            Form::Json => match told {
                Told::Event(event) => say(&serde_json::to_string(event)?),
                Told::Scene(scene) => self.status_line(scene),
            },
            Form::Plain => match told {
                Told::Event(event) => {
                    let ends = matches!(event, Event::Batch(_) | Event::NoBatch { .. });
                    say(&text::line(event))?;
                    self.summary = self.summary.filter(|_| !ends);
                    Ok(())
                }
                Told::Scene(scene) if self.summary.is_none() => {
                    self.summary = Some(scene.height);
                    say(&text::summary(scene))
                }
                Told::Scene(_) => Ok(()),
            },
            Form::Screen => {
                match told {
                    Told::Event(event) => {
                        self.recent.push_back(text::line(event));
                        let excess = self.recent.len().saturating_sub(KEPT);
                        self.recent.drain(..excess);
                    }
                    Told::Scene(scene) => self.last = Some(scene.clone()),
                }
                self.draw()
            }
        }
    }

    /// Machines get a whole status after each clearing.
    fn status_line(&mut self, scene: &Scene) -> anyhow::Result<()> {
        let clearing = scene.clearings.last().map(|line| line.batch.clone());
        let seen = self.last.as_ref().map(|last| last.clearings.last().map(|line| line.batch.clone()));
        self.last = Some(Box::new(scene.clone()));
        if seen == Some(clearing) {
            return Ok(());
        }
        let mut object = serde_json::to_value(scene)?;
        if let Some(object) = object.as_object_mut() {
            object.insert("event".to_owned(), "status".into());
        }
        say(&object.to_string())
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        match (&mut self.screen, &self.last) {
            (Some(screen), Some(scene)) => screen.draw(scene, self.recent.make_contiguous()),
            (Some(screen), None) => screen.wait("opening the market: everybody gets an account ..."),
            (None, _) => Ok(()),
        }
    }
}
