//! Things with small numbers.

/// A list of which the places are used again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, item: T) -> usize {
        match self.free.pop() {
            Some(at) => {
                self.items[at] = Some(item);
                at
            }
            None => {
                self.items.push(Some(item));
                self.items.len() - 1
            }
        }
    }

    /// How many numbers are in use.
    pub(crate) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Takes a thing out, whose number stays its own until it is put back or let go.
    pub(crate) fn take(&mut self, at: usize) -> Option<T> {
        self.items.get_mut(at)?.take()
    }

    pub(crate) fn put_back(&mut self, at: usize, item: T) {
        self.items[at] = Some(item);
    }

    /// The number of a thing that was taken may be given to another.
    pub(crate) fn let_go(&mut self, at: usize) {
        self.free.push(at);
    }
}
