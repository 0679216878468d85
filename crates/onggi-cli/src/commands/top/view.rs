//! Draws the pages.

use onggi_primitives::cgroup::Pressure;
use onggi_spec::quantity::human_memory;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::Line,
    widgets::{Block, Cell, Paragraph, Row as TableRow, Table, TableState},
};

use super::{
    Sort,
    sample::{self, Row, Subject},
    state::{Page, State},
};

const HELP: &[&str] = &[
    "c m t i p n   sort by CPU, memory, tasks, I/O, pressure, name",
    "r             the other way round",
    "up down j k   choose a row, or scroll",
    "Enter         everything that is known of the row",
    "l             the log of the container",
    "Tab           containers or control groups",
    "Esc           back",
    "h ?           this page",
    "q             quit",
    "",
    "CPU % is of one processor. PSI is the share of the last ten seconds in which some task waited",
    "for CPU, memory or I/O; a dash is where the kernel does not measure it.",
];

/// Draws the page.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, logs: &[String]) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(title(state)).style(Style::new().add_modifier(Modifier::REVERSED)), head);
    match state.page {
        Page::List => list(frame, body, state),
        Page::Detail => {
            let lines = state.current().map(sample::details).unwrap_or_else(|| vec!["it is gone".to_owned()]);
            page(frame, body, state, " details ", &lines, state.scroll);
        }
        Page::Logs => {
            // The end of a log is what one wants to see first.
            let height = usize::from(body.height.saturating_sub(2));
            let end = u16::try_from(logs.len().saturating_sub(height)).unwrap_or(u16::MAX);
            page(frame, body, state, " log ", logs, end.saturating_sub(state.scroll));
        }
        Page::Help => {
            let lines: Vec<String> = HELP.iter().map(|line| (*line).to_owned()).collect();
            page(frame, body, state, " keys ", &lines, state.scroll);
        }
    }
    let keys = match state.page {
        Page::List => "q quit  h help  Enter details  l log  Tab containers/groups  c m t i p n r sort",
        _ => "Esc back  up/down scroll  q quit",
    };
    frame.render_widget(Paragraph::new(keys), foot);
}

fn title(state: &State) -> String {
    let what = if state.subject == Subject::Groups { "control groups" } else { "containers" };
    let stall = |p: &Pressure| format!("{} {:.2}", p.resource, p.some.avg10);
    let machine: Vec<String> = state.look.machine.iter().map(stall).collect();
    let pressure =
        if machine.is_empty() { String::new() } else { format!("  machine's pressure: {}", machine.join(", ")) };
    format!("onggi top: {} {what}, by {}{pressure}", state.look.rows.len(), sorted_by(state.sort))
}

fn sorted_by(sort: Sort) -> &'static str {
    match sort {
        Sort::Cpu => "CPU",
        Sort::Memory => "memory",
        Sort::Tasks => "tasks",
        Sort::Io => "I/O",
        Sort::Pressure => "pressure",
        Sort::Name => "name",
    }
}

fn list(frame: &mut Frame<'_>, area: Rect, state: &State) {
    if state.look.rows.is_empty() {
        let text = match state.subject {
            Subject::Containers => "no container runs; Tab shows control groups",
            Subject::Groups => "there is no group",
        };
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let heads = ["NAME", "TASKS", "CPU %", "MEMORY", "LIMIT", "READ/S", "WRITE/S", "CPU PSI", "MEM PSI", "IO PSI"];
    let header = TableRow::new(heads.map(Cell::from)).style(Style::new().add_modifier(Modifier::BOLD));
    let widths = [
        Constraint::Min(16),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
    ];
    let table = Table::new(state.look.rows.iter().map(cells), widths)
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut chosen = TableState::default().with_selected(Some(state.selected));
    frame.render_stateful_widget(table, area, &mut chosen);
}

fn cells(row: &Row) -> TableRow<'static> {
    let limit = row.limit.map_or_else(|| "max".to_owned(), human_memory);
    TableRow::new([
        crate::render::table::printable(&row.name),
        row.tasks.to_string(),
        format!("{:.1}", row.cpu),
        human_memory(row.memory),
        limit,
        human_memory(row.read as u64),
        human_memory(row.write as u64),
        row.stall("cpu"),
        row.stall("memory"),
        row.stall("io"),
    ])
}

fn page(frame: &mut Frame<'_>, area: Rect, state: &State, kind: &str, lines: &[String], scroll: u16) {
    let name = state.current().map(|row| crate::render::table::printable(&row.name)).unwrap_or_default();
    let name = if state.page == Page::Help { String::new() } else { format!(" {name}") };
    let text: Vec<Line<'_>> = lines.iter().map(|line| Line::from(line.as_str())).collect();
    frame.render_widget(
        Paragraph::new(text).scroll((scroll, 0)).block(Block::bordered().title(format!("{name}{kind}"))),
        area,
    );
}
