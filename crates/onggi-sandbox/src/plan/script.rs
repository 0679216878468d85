//! A plan as a shell script of util-linux tools that builds the same container by hand.

use super::SandboxPlan;

impl SandboxPlan {
    /// A runnable script for sh(1).
    pub fn script(&self) -> String {
        let mut out = String::from("#!/bin/sh\nset -eu\n");
        for line in self.words() {
            out.push_str("# ");
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}
