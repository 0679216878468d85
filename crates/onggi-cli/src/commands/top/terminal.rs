//! The loop on a terminal: draw, wait for a key or for the time, look again.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    Sort,
    sample::{Sampler, Subject},
    state::{Key, Page, State, Wish},
    view,
};
use crate::error::CliError;

/// Shows until `q`, or for so many looks. The terminal is put back whatever happens.
pub(super) fn run(
    subject: Subject,
    mut sampler: Sampler,
    sort: Sort,
    pause: Duration,
    iterations: Option<u64>,
) -> Result<u8, CliError> {
    let mut state = State::new(subject, sort);
    state.update(sampler.look(subject)?);
    let mut terminal = ratatui::try_init().map_err(CliError::Output)?;
    let shown = show(&mut terminal, &mut state, &mut sampler, pause, iterations);
    ratatui::restore();
    shown.map(|()| 0)
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    state: &mut State,
    sampler: &mut Sampler,
    pause: Duration,
    iterations: Option<u64>,
) -> Result<(), CliError> {
    let mut next = Instant::now() + pause;
    let mut looks = 0;
    let mut logs = Vec::new();
    loop {
        if state.page == Page::Logs {
            let name = state.current().and_then(|row| row.container.clone());
            logs = name
                .map(|name| sampler.logs(&name))
                .transpose()
                .unwrap_or_else(|e| Some(vec![e.to_string()]))
                .unwrap_or_default();
        }
        terminal.draw(|frame| view::draw(frame, state, &logs)).map_err(CliError::Output)?;
        let left = next.saturating_duration_since(Instant::now());
        let wish = if event::poll(left).map_err(CliError::Output)? {
            pressed(state, &event::read().map_err(CliError::Output)?)
        } else {
            Wish::Look
        };
        match wish {
            Wish::Quit => return Ok(()),
            Wish::Draw => continue,
            Wish::Look => {}
        }
        looks += 1;
        if iterations.is_some_and(|n| looks >= n) {
            return Ok(());
        }
        state.update(sampler.look(state.subject)?);
        next = Instant::now() + pause;
    }
}

/// Resizing draws again by itself.
fn pressed(state: &mut State, event: &Event) -> Wish {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return Wish::Draw };
    let key = match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Wish::Quit,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc | KeyCode::Backspace => Key::Back,
        KeyCode::Tab => Key::Tab,
        KeyCode::Char(c) => Key::Char(*c),
        _ => return Wish::Draw,
    };
    state.key(key)
}
