//! Routes by path: one search and a few steps find every candidate for a path.

use super::leads;
use regex::bytes::Regex;

/// What must hold of a path that begins with the one a route is indexed under.
#[derive(Clone)]
pub(super) enum How {
    /// It is the same.
    Exact,
    /// Complete segments follow, or nothing.
    Below,
    /// As `Below`, and this expression matches.
    Regex(Regex),
}

impl PartialEq for How {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact, Self::Exact) | (Self::Below, Self::Below) => true,
            (Self::Regex(one), Self::Regex(other)) => one.as_str() == other.as_str(),
            _ => false,
        }
    }
}

/// Sorted paths, each with its routes.
#[derive(Clone, Default)]
pub(super) struct PathIndex(Vec<Node>);

#[derive(Clone)]
struct Node {
    path: Box<[u8]>,
    /// The longest other path that is a prefix of this one.
    parent: Option<usize>,
    /// In ascending order.
    routes: Vec<(usize, How)>,
}

impl PathIndex {
    /// Adds a route, with a higher index than all before.
    pub(super) fn add(&mut self, path: &[u8], route: usize, how: How) {
        let place = self.0.binary_search_by(|node| (*node.path).cmp(path));
        let place = place.unwrap_or_else(|place| {
            let node = Node {
                path: path.into(),
                parent: None,
                routes: Vec::new(),
            };
            self.0.insert(place, node);
            place
        });
        self.0[place].routes.push((route, how));
    }

    /// Sets the parents, once all routes are added.
    pub(super) fn link(&mut self) {
        let mut above: Vec<usize> = Vec::new();
        for index in 0..self.0.len() {
            let path = &self.0[index].path;
            while above
                .last()
                .is_some_and(|&last| !path.starts_with(&self.0[last].path))
            {
                above.pop();
            }
            self.0[index].parent = above.last().copied();
            above.push(index);
        }
    }

    /// Lowers `best` to the first route that leads to the path and `holds`, if there is one before it.
    ///
    /// All nodes that are prefixes of the path form one chain of parents: the last node that sorts no later than the
    /// path starts with the longest of them.
    pub(super) fn search(&self, path: &[u8], best: &mut usize, holds: &impl Fn(usize) -> bool) {
        let behind = self.0.partition_point(|node| *node.path <= *path);
        let mut next = behind.checked_sub(1);
        while let Some(index) = next {
            let node = &self.0[index];
            next = node.parent;
            let Some(rest) = path.strip_prefix(&*node.path) else {
                continue;
            };
            let before = node.routes.iter().take_while(|(route, _)| route < best);
            let leads = |how: &How| match how {
                How::Exact => rest.is_empty(),
                How::Below => leads(&node.path, rest),
                How::Regex(regex) => leads(&node.path, rest) && regex.is_match(path),
            };
            let mut found = before.filter(|(route, how)| leads(how) && holds(*route));
            if let Some((route, _)) = found.next() {
                *best = *route;
            }
        }
    }
}
