//! Handing over: each item goes to the outlet before the cursor moves, and what found no room stays owed.

use super::{Change, Cursor, Item, Missed, Outlet, Reason};

/// The outlet has no room.
#[derive(Clone, Copy)]
pub(super) struct Full;

impl<E> Cursor<E> {
    /// Hands over what `missed` holds, or instead a refresh, and all that is owed.
    pub(super) fn serve(
        &mut self,
        missed: &Missed<E>,
        outlet: &mut impl Outlet<E>,
    ) -> Result<(), Full> {
        match self.owed.refresh {
            None | Some(Reason::Connect) => self.replay(missed, outlet)?,
            Some(Reason::Gap | Reason::Reset) => {
                self.refresh(missed.head, outlet)?;
                self.advance(missed.head);
            }
        }
        self.count(missed.unread, missed.head, outlet)?;
        self.refresh(missed.head, outlet)?;
        self.synced(outlet)
    }

    fn replay(&mut self, missed: &Missed<E>, outlet: &mut impl Outlet<E>) -> Result<(), Full> {
        for (seq, event) in &missed.changes {
            emit(outlet, Item::Change(event))?;
            self.advance(*seq);
            self.owed.synced = self.owed.synced.map(|replayed| replayed + 1);
        }
        if self.seq != missed.head {
            self.advance(missed.head);
        }
        Ok(())
    }

    /// Hands over the refresh that is owed, if any.
    pub(super) fn refresh(&mut self, head: u64, outlet: &mut impl Outlet<E>) -> Result<(), Full> {
        if let Some(reason) = self.owed.refresh {
            emit(outlet, Item::Refresh { reason, seq: head })?;
            self.owed.refresh = None;
            // It fetches the list now, and what comes after that list it must not miss: it is not new any more.
            self.owed.connect_later &= reason == Reason::Gap;
        }
        Ok(())
    }

    /// Hands over the count that is owed, if any.
    fn count(&mut self, unread: u64, seq: u64, outlet: &mut impl Outlet<E>) -> Result<(), Full> {
        if self.owed.count {
            emit(outlet, Item::Count { unread, seq })?;
            self.owed.count = false;
        }
        Ok(())
    }

    /// Hands over the end of the synchronisation, if it is owed.
    fn synced(&mut self, outlet: &mut impl Outlet<E>) -> Result<(), Full> {
        if let Some(replayed) = self.owed.synced {
            emit(
                outlet,
                Item::Synced {
                    seq: self.seq,
                    replayed,
                },
            )?;
            self.owed.synced = None;
        }
        Ok(())
    }

    /// Hands over what is held, as far as it follows without a gap.
    pub(super) fn flush(&mut self, outlet: &mut impl Outlet<E>) -> Result<(), Full> {
        while let Some(next) = self.held.first_entry()
            && *next.key() <= self.seq + 1
        {
            let change = next.remove();
            if change.seq > self.seq {
                self.hand_over(&change, outlet)?;
            }
        }
        Ok(())
    }

    pub(super) fn hand_over(
        &mut self,
        change: &Change<E>,
        outlet: &mut impl Outlet<E>,
    ) -> Result<(), Full> {
        emit(outlet, Item::Change(&change.event))?;
        self.advance(change.seq);
        self.count(change.unread, change.seq, outlet)
    }

    pub(super) fn advance(&mut self, seq: u64) {
        self.seq = seq;
        self.owed.count = true;
    }
}

fn emit<E>(outlet: &mut impl Outlet<E>, item: Item<'_, E>) -> Result<(), Full> {
    let skip = cfg!(feature = "bug-skip-on-full") && matches!(item, Item::Change(_));
    if outlet.emit(item) || skip {
        Ok(())
    } else {
        Err(Full)
    }
}
