//! `list`: all containers of a root, as table, JSON or ids.

use std::fs;

use onggi_sandbox::Listed;
use onggi_spec::oci::runtime::ContainerState;

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag},
    inspect::{Shown, to_json},
    log::print,
};

pub(super) const FLAGS: &[Flag] = &[
    Flag::value("format", "f").help("select one of: table or json"),
    Flag::switch("quiet", "q").help("display only container IDs"),
];

/// Narrowest column and the space between columns: the layout of runc's table.
const COLUMN: usize = 12;
const GAP: usize = 3;

pub(super) fn list(global: &Global, args: &Args) -> Outcome {
    if global.root_given && !global.root.is_dir() {
        let source = std::io::Error::from_raw_os_error(onggi_sys::Errno::NOENT.raw_os_error());
        return Err(CliError::File { what: "open root directory", path: global.root.clone(), source });
    }
    let mut all = Vec::new();
    for (id, found) in onggi_sandbox::list(&global.root)? {
        match found {
            Ok(listed) => all.push(listed),
            // One damaged container must not hide the others.
            Err(e) => global.log.warning(&format!("load container {id}: {e}")),
        }
    }
    if args.is("quiet") {
        print(&all.iter().map(|c| c.state.id.clone() + "\n").collect::<String>());
        return Ok(0);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let shown: Vec<_> = all.iter().map(|c| Shown::new(c, user_name(&users, c.state.owner_uid))).collect();
    match args.text("format").unwrap_or("table") {
        // Go's encoder writes an empty list so, and callers expect it.
        "json" if shown.is_empty() => print("null\n"),
        "json" => print(&to_json(&shown, false)?),
        "table" => print(&table(&all, &shown)),
        _ => return Err(CliError::Usage("invalid format option".into())),
    }
    Ok(0)
}

/// The owner's name; the number when nobody has it.
fn user_name(users: &str, uid: u32) -> String {
    let number = uid.to_string();
    let mut names = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    names.next().unwrap_or_else(|| format!("#{number}"))
}

fn status_name(status: ContainerState) -> String {
    format!("{status:?}").to_lowercase()
}

fn table(all: &[Listed], shown: &[Shown<'_>]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    rows.extend(all.iter().zip(shown).map(|(c, s)| {
        let bundle = c.state.bundle.display().to_string();
        [c.state.id.clone(), s.pid.to_string(), status_name(c.status), bundle, s.created.clone(), s.owner.clone()]
    }));
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        COLUMN.max(longest + GAP)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let cells = row[..5].iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<String>() + &row[5] + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_name_where_there_is_one() {
        let users = "root:x:0:0::/root:/bin/sh\nbroken\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert_eq!((user_name(users, 1000), user_name(users, 7)), ("me".to_owned(), "#7".to_owned()));
    }

    #[test]
    fn an_empty_table_is_runcs_header() {
        let header = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
        assert_eq!(table(&[], &[]), header);
    }
}
