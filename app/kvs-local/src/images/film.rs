//! Which pictures of a fragment have to be decoded for some of them to be seen.

use bytes::Bytes;

use crate::footage::{Footage, Shown};

/// A movie with no more pictures than needed.
#[derive(Debug)]
pub(super) struct Film {
    /// An MP4 whose first picture can be decoded, and is the first to be shown.
    pub(super) movie: Bytes,
    /// For each time that was asked for: when its picture is shown, in milliseconds behind the first picture of the movie.
    /// `None`: it cannot be decoded.
    pub(super) shown_ms: Vec<Option<u64>>,
}

impl Film {
    /// `offsets_ms`: times behind the fragment's begin. `None`: no picture can be decoded.
    pub(super) fn of(footage: &Footage, offsets_ms: &[u64]) -> Option<Self> {
        let pictures = footage.shown();
        let cut = Cut::of(&pictures, offsets_ms)?;
        let begin_ms = pictures[cut.first].at_ms;
        let movie = footage.movie(|index| cut.has(&pictures, index)).ok()?;
        let shown_ms = cut.chosen.iter().map(|chosen| {
            let chosen = chosen.filter(|index| cut.has(&pictures, *index))?;
            u64::try_from(pictures[chosen].at_ms - begin_ms).ok()
        });
        Some(Self { movie, shown_ms: shown_ms.collect() })
    }
}

/// Places in decoding order.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    first: usize,
    last: usize,
    chosen: Vec<Option<usize>>,
}

impl Cut {
    fn of(pictures: &[Shown], offsets_ms: &[u64]) -> Option<Self> {
        let chosen = offsets_ms.iter().map(|offset_ms| {
            let offset_ms = i64::try_from(*offset_ms).ok()?;
            let before = |(_, picture): &(usize, &Shown)| picture.at_ms <= offset_ms;
            let places = || pictures.iter().enumerate();
            let latest = places().filter(before).max_by_key(|(_, picture)| picture.at_ms);
            // The first one may be shown a little behind the begin of its fragment.
            latest.or_else(|| places().min_by_key(|(_, picture)| picture.at_ms)).map(|(index, _)| index)
        });
        let chosen: Vec<Option<usize>> = chosen.collect();
        let earliest = chosen.iter().flatten().min().copied()?;
        let last = chosen.iter().flatten().max().copied()?;
        let shown_from = chosen.iter().flatten().map(|index| pictures[*index].at_ms).min()?;
        // Behind a key frame may stand pictures that are shown before it, and need those in front of it.
        let begins = |index: &usize| pictures[*index].key_frame;
        let serves = |index: &usize| *index <= earliest && pictures[*index].at_ms <= shown_from;
        let first = (0..pictures.len()).filter(begins).rfind(serves);
        let first = first.or_else(|| (0..pictures.len()).find(begins)).filter(|first| *first <= last)?;
        Some(Self { first, last, chosen })
    }

    fn has(&self, pictures: &[Shown], index: usize) -> bool {
        (self.first..=self.last).contains(&index) && pictures[index].at_ms >= pictures[self.first].at_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `K` stands for a key frame; each number is when a picture is shown, in decoding order.
    fn pictures(text: &str) -> Vec<Shown> {
        let picture = |word: &str| Shown {
            at_ms: word.trim_start_matches('K').parse().expect("a number"),
            key_frame: word.starts_with('K'),
        };
        text.split_whitespace().map(picture).collect()
    }

    /// What is decoded, and what of it is seen.
    fn check(text: &str, offsets: &[u64], decoded: &[i64], seen: &[Option<i64>]) {
        let pictures = pictures(text);
        let cut = Cut::of(&pictures, offsets).unwrap_or_else(|| panic!("{text}: {offsets:?}"));
        let has = (0..pictures.len()).filter(|index| cut.has(&pictures, *index));
        assert_eq!(
            has.map(|index| pictures[index].at_ms).collect::<Vec<_>>(),
            decoded,
            "{text}: {offsets:?}"
        );
        let found = cut.chosen.iter().map(|chosen| {
            chosen.filter(|index| cut.has(&pictures, *index)).map(|index| pictures[index].at_ms)
        });
        assert_eq!(found.collect::<Vec<_>>(), seen, "{text}: {offsets:?}");
    }

    #[test]
    fn a_picture_is_decoded_with_those_that_it_needs_and_no_others() {
        let plain = "K0 40 80 K120 160 200";
        check(plain, &[0], &[0], &[Some(0)]);
        check(plain, &[79, 80], &[0, 40, 80], &[Some(40), Some(80)]);
        check(plain, &[199], &[120, 160], &[Some(160)]);
        check(plain, &[40, 200], &[0, 40, 80, 120, 160, 200], &[Some(40), Some(200)]);
        check("K5 45", &[0], &[5], &[Some(5)]);
    }

    #[test]
    fn reordered_pictures_are_found_by_when_they_are_shown() {
        let reordered = "K0 120 40 80 K240 160 200";
        check(reordered, &[80], &[0, 120, 40, 80], &[Some(80)]);
        check(reordered, &[240], &[240], &[Some(240)]);
        // Shown before the key frame, and behind it in the file.
        check(reordered, &[170], &[0, 120, 40, 80, 240, 160], &[Some(160)]);
        // What leads the first key frame refers to what is not there.
        check("K100 60 140", &[60, 140], &[100, 140], &[None, Some(140)]);
    }

    #[test]
    fn without_a_key_frame_there_is_nothing_to_decode() {
        assert_eq!(Cut::of(&pictures("0 40"), &[0]), None);
        assert_eq!(Cut::of(&pictures("0 K40"), &[0]), None);
        assert_eq!(Cut::of(&[], &[0]), None);
        check("0 K40 80", &[0, 80], &[40, 80], &[None, Some(80)]);
    }
}
