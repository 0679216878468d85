//! What is shown, and how a key changes it. No terminal here.

use super::{
    Sort,
    sample::{Look, Row, Subject},
};

/// Which page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// The table.
    List,
    /// One row with everything that is known of it.
    Detail,
    /// A container's log.
    Logs,
    /// The keys.
    Help,
}

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A letter.
    Char(char),
    /// Arrow or k.
    Up,
    /// Arrow or j.
    Down,
    /// Return.
    Enter,
    /// Escape.
    Back,
    /// Tabulator.
    Tab,
}

/// What the caller has to do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Draw.
    Draw,
    /// Look again at once: other rows are wanted.
    Look,
    /// End.
    Quit,
}

/// Everything that is shown.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) subject: Subject,
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    pub(super) page: Page,
    pub(super) selected: usize,
    /// Lines that a page is scrolled down by.
    pub(super) scroll: u16,
    pub(super) look: Look,
}

impl State {
    pub(super) fn new(subject: Subject, sort: Sort) -> Self {
        Self { subject, sort, reverse: false, page: Page::List, selected: 0, scroll: 0, look: Look::default() }
    }

    /// Takes a new look; the selection stays on its row.
    pub(super) fn update(&mut self, mut look: Look) {
        let name = self.current().map(|row| row.group.clone());
        sort(&mut look.rows, self.sort, self.reverse);
        let at = name.and_then(|name| look.rows.iter().position(|row| row.group == name));
        let last = look.rows.len().saturating_sub(1);
        // In the table the eye stays at its line; on a page the row must stay the same.
        self.selected =
            if self.page == Page::List { self.selected.min(last) } else { at.unwrap_or(self.selected.min(last)) };
        self.look = look;
    }

    /// The selected row.
    pub(super) fn current(&self) -> Option<&Row> {
        self.look.rows.get(self.selected)
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: Key) -> Wish {
        match (key, self.page) {
            (Key::Char('q'), _) => return Wish::Quit,
            (Key::Back, Page::List) => return Wish::Quit,
            (Key::Back, _) => self.turn(Page::List),
            (Key::Char('h' | '?'), _) => self.turn(Page::Help),
            (Key::Up, Page::List) => self.selected = self.selected.saturating_sub(1),
            (Key::Down, Page::List) => {
                self.selected = (self.selected + 1).min(self.look.rows.len().saturating_sub(1));
            }
            (Key::Up, _) => self.scroll = self.scroll.saturating_sub(1),
            (Key::Down, _) => self.scroll = self.scroll.saturating_add(1),
            (Key::Enter, Page::List) if self.current().is_some() => self.turn(Page::Detail),
            (Key::Char('l'), Page::List | Page::Detail) if self.current().is_some_and(|r| r.container.is_some()) => {
                self.turn(Page::Logs);
            }
            (Key::Tab, _) => {
                self.subject = if self.subject == Subject::Groups { Subject::Containers } else { Subject::Groups };
                self.selected = 0;
                self.turn(Page::List);
                return Wish::Look;
            }
            (Key::Char(c), Page::List) => self.order(c),
            _ => {}
        }
        Wish::Draw
    }

    fn turn(&mut self, page: Page) {
        (self.page, self.scroll) = (page, 0);
    }

    fn order(&mut self, key: char) {
        match key {
            'c' => self.sort = Sort::Cpu,
            'm' => self.sort = Sort::Memory,
            't' => self.sort = Sort::Tasks,
            'i' => self.sort = Sort::Io,
            'p' => self.sort = Sort::Pressure,
            'n' => self.sort = Sort::Name,
            'r' => self.reverse = !self.reverse,
            _ => return,
        }
        sort(&mut self.look.rows, self.sort, self.reverse);
    }
}

/// The largest first, names from the beginning; equal ones by name.
pub(super) fn sort(rows: &mut [Row], by: Sort, reverse: bool) {
    rows.sort_by(|a, b| {
        let order = match by {
            Sort::Cpu => b.cpu.total_cmp(&a.cpu),
            Sort::Memory => b.memory.cmp(&a.memory),
            Sort::Tasks => b.tasks.cmp(&a.tasks),
            Sort::Io => (b.read + b.write).total_cmp(&(a.read + a.write)),
            Sort::Pressure => b.worst_stall().total_cmp(&a.worst_stall()),
            Sort::Name => std::cmp::Ordering::Equal,
        };
        let order = order.then_with(|| a.name.cmp(&b.name));
        if reverse { order.reverse() } else { order }
    });
}

#[cfg(test)]
mod tests {
    use onggi_primitives::cgroup::Node;

    use super::*;

    fn row(name: &str, cpu: f64, memory: u64) -> Row {
        let node = Node {
            path: name.into(),
            paths: Default::default(),
            processes: Default::default(),
            stats: Default::default(),
        };
        Row {
            name: name.into(),
            container: (name == "web").then(|| name.into()),
            group: format!("/{name}"),
            cpu,
            memory,
            limit: None,
            tasks: 1,
            read: 0.0,
            write: 0.0,
            pressure: Vec::new(),
            node,
        }
    }

    fn state() -> State {
        let mut state = State::new(Subject::Groups, Sort::Cpu);
        let rows = vec![row("a", 1.0, 9), row("web", 50.0, 5), row("b", 1.0, 7)];
        state.update(Look { rows, machine: Vec::new() });
        state
    }

    fn names(state: &State) -> Vec<&str> {
        state.look.rows.iter().map(|r| r.name.as_str()).collect()
    }

    #[test]
    fn keys_sort_the_table() {
        let mut state = state();
        assert_eq!(names(&state), ["web", "a", "b"]);
        for (key, expected) in
            [('m', ["a", "b", "web"]), ('n', ["a", "b", "web"]), ('r', ["web", "b", "a"]), ('c', ["b", "a", "web"])]
        {
            assert_eq!(state.key(Key::Char(key)), Wish::Draw);
            assert_eq!(names(&state), expected, "{key}");
        }
    }

    #[test]
    fn pages_open_and_close_and_stay_with_their_row() {
        let mut state = state();
        state.key(Key::Enter);
        assert_eq!((state.page, state.current().map(|r| r.name.as_str())), (Page::Detail, Some("web")));
        let rows = vec![row("a", 99.0, 9), row("web", 50.0, 5)];
        state.update(Look { rows, machine: Vec::new() });
        assert_eq!(state.current().map(|r| r.name.as_str()), Some("web"));
        state.key(Key::Char('l'));
        assert_eq!(state.page, Page::Logs);
        state.key(Key::Back);
        state.key(Key::Up);
        assert_eq!(state.current().map(|r| r.name.as_str()), Some("a"));
        // Only a container has a log.
        state.key(Key::Char('l'));
        assert_eq!(state.page, Page::List);
        assert_eq!(state.key(Key::Tab), Wish::Look);
        assert_eq!((state.subject, state.key(Key::Back)), (Subject::Containers, Wish::Quit));
    }

    #[test]
    fn a_list_that_has_become_shorter_keeps_the_selection_inside() {
        let mut state = state();
        for _ in 0..9 {
            state.key(Key::Down);
        }
        assert_eq!(state.selected, 2);
        state.update(Look::default());
        assert_eq!((state.selected, state.current()), (0, None));
        assert_eq!(state.key(Key::Enter), Wish::Draw);
    }
}
