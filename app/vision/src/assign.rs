//! Which box belongs to which track: the set of pairs with the largest sum of gains, each row and column once.
//!
//! Only pairs that came through a gate are given, so the problem falls apart into islands that share no row and no
//! column, mostly of one to five pairs. Each island is solved exactly by the Hungarian method (shortest augmenting
//! paths, O(rows² columns)), which returns the exact answer to the whole. An island with more than [`EXACT_SIDE`] rows
//! and columns, that is a detector gone mad, is solved by taking the best pair first.
//!
//! Written here and not taken from a crate: the sparse form with islands is what is needed, and 60 lines are the core.

/// Beyond this many rows and columns (of one island) the best pair is taken first: at 300 x 300 the exact method
/// takes some 20 ms.
const EXACT_SIDE: usize = 300;

/// A row and a column that may belong together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) row: usize,
    pub(crate) column: usize,
    /// Positive and finite.
    pub(crate) gain: f32,
}

/// The chosen ones of `pairs`, by rising row. `pairs` names each (row, column) at most once; rows and columns are
/// below `rows` and `columns`. The same pairs in the same order give the same answer.
pub(crate) fn assign(rows: usize, columns: usize, pairs: &[Pair]) -> Vec<Pair> {
    let mut chosen = Vec::with_capacity(rows.min(columns));
    for island in islands(rows, columns, pairs) {
        match &island[..] {
            [alone] => chosen.push(*alone),
            _ => solve(&island, &mut chosen),
        }
    }
    chosen.sort_unstable_by_key(|pair| (pair.row, pair.column));
    chosen
}

/// Groups pairs that are connected by shared rows and columns, in the order of their first pair.
fn islands(rows: usize, columns: usize, pairs: &[Pair]) -> Vec<Vec<Pair>> {
    let mut roots: Vec<usize> = (0..rows + columns).collect(); // union-find; columns behind rows
    for pair in pairs {
        let (a, b) = (find(&mut roots, pair.row), find(&mut roots, rows + pair.column));
        roots[a.max(b)] = a.min(b);
    }
    let mut number_of = vec![usize::MAX; rows + columns];
    let mut islands: Vec<Vec<Pair>> = Vec::new();
    for pair in pairs {
        let root = find(&mut roots, pair.row);
        if number_of[root] == usize::MAX {
            number_of[root] = islands.len();
            islands.push(Vec::new());
        }
        islands[number_of[root]].push(*pair);
    }
    islands
}

fn find(roots: &mut [usize], mut node: usize) -> usize {
    while roots[node] != node {
        roots[node] = roots[roots[node]];
        node = roots[node];
    }
    node
}

/// One island, rows and columns renumbered without holes.
fn solve(island: &[Pair], chosen: &mut Vec<Pair>) {
    let rows = distinct(island.iter().map(|pair| pair.row));
    let columns = distinct(island.iter().map(|pair| pair.column));
    if rows.len().max(columns.len()) > EXACT_SIDE && rows.len().min(columns.len()) > 1 {
        return best_first(island, chosen);
    }
    // The method wants at least as many columns as rows. A pair that is not there gains 0, as does a row without one.
    let turned = rows.len() > columns.len();
    let (short, long) = if turned { (&columns, &rows) } else { (&rows, &columns) };
    let mut gains = vec![0.0; short.len() * long.len()];
    for pair in island {
        let (s, l) = if turned { (pair.column, pair.row) } else { (pair.row, pair.column) };
        let at = |of: &[usize], value| of.binary_search(&value).expect("collected from the same pairs");
        gains[at(short, s) * long.len() + at(long, l)] = f64::from(pair.gain);
    }
    for (s, l) in hungarian(&gains, short.len(), long.len()) {
        let gain = gains[s * long.len() + l];
        if gain > 0.0 {
            let (row, column) = if turned { (long[l], short[s]) } else { (short[s], long[l]) };
            #[expect(clippy::cast_possible_truncation, reason = "it was an f32")]
            chosen.push(Pair { row, column, gain: gain as f32 });
        }
    }
}

fn distinct(values: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut values: Vec<usize> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

fn best_first(island: &[Pair], chosen: &mut Vec<Pair>) {
    let mut order = island.to_vec();
    order.sort_by(|a, b| b.gain.total_cmp(&a.gain).then(a.row.cmp(&b.row)).then(a.column.cmp(&b.column)));
    let (mut rows, mut columns) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for pair in order {
        if !rows.contains(&pair.row) && !columns.contains(&pair.column) {
            rows.insert(pair.row);
            columns.insert(pair.column);
            chosen.push(pair);
        }
    }
}

/// Assigns every row a column so that the sum of `gains` (row by row, `rows <= columns`) is largest.
///
/// Kuhn and Munkres by shortest augmenting paths with potentials; costs are the negated gains.
fn hungarian(gains: &[f64], rows: usize, columns: usize) -> Vec<(usize, usize)> {
    // Numbered from 1; 0 stands for "none" (row) and for the start of a path (column).
    let (mut row_potential, mut column_potential) = (vec![0.0; rows + 1], vec![0.0; columns + 1]);
    let mut row_of = vec![0; columns + 1];
    let mut came_from = vec![0; columns + 1];
    for row in 1..=rows {
        row_of[0] = row;
        let mut column = 0;
        let mut slack = vec![f64::INFINITY; columns + 1];
        let mut used = vec![false; columns + 1];
        while row_of[column] != 0 {
            used[column] = true;
            let (here, mut step, mut next) = (row_of[column], f64::INFINITY, 0);
            for c in 1..=columns {
                if used[c] {
                    continue;
                }
                let reduced =
                    -gains[(here - 1) * columns + c - 1] - row_potential[here] - column_potential[c];
                if reduced < slack[c] {
                    slack[c] = reduced;
                    came_from[c] = column;
                }
                if slack[c] < step {
                    step = slack[c];
                    next = c;
                }
            }
            for c in 0..=columns {
                if used[c] {
                    row_potential[row_of[c]] += step;
                    column_potential[c] -= step;
                } else {
                    slack[c] -= step;
                }
            }
            column = next;
        }
        while column != 0 {
            let before = came_from[column];
            row_of[column] = row_of[before];
            column = before;
        }
    }
    (1..=columns).filter(|&c| row_of[c] != 0).map(|c| (row_of[c] - 1, c - 1)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(pairs: &[Pair]) -> f64 {
        pairs.iter().map(|pair| f64::from(pair.gain)).sum()
    }

    /// Tries everything: for each row nothing or any of its free columns.
    fn brute_force(rows: usize, pairs: &[Pair], row: usize, taken: u32) -> f64 {
        if row == rows {
            return 0.0;
        }
        let mut best = brute_force(rows, pairs, row + 1, taken);
        for pair in pairs.iter().filter(|pair| pair.row == row && taken & 1 << pair.column == 0) {
            let rest = brute_force(rows, pairs, row + 1, taken | 1 << pair.column);
            best = best.max(f64::from(pair.gain) + rest);
        }
        best
    }

    fn assert_each_once(chosen: &[Pair]) {
        for (n, a) in chosen.iter().enumerate() {
            assert!(chosen[n + 1..].iter().all(|b| a.row != b.row && a.column != b.column), "{chosen:?}");
        }
    }

    #[test]
    fn best_pair_is_given_up_for_a_better_sum() {
        let pair = |row, column, gain| Pair { row, column, gain };
        let pairs = [pair(0, 0, 0.9), pair(0, 1, 0.8), pair(1, 0, 0.8), pair(2, 5, 0.1)];
        assert_eq!(assign(3, 6, &pairs), [pair(0, 1, 0.8), pair(1, 0, 0.8), pair(2, 5, 0.1)]);
        assert_eq!(assign(3, 6, &[]), []);
        assert_eq!(assign(0, 0, &[]), []);
    }

    proptest! {
        #[test]
        fn sum_is_the_largest_possible(
            rows in 1..6_usize,
            columns in 1..6_usize,
            gains in proptest::collection::vec(proptest::option::of(1..100_u8), 36),
        ) {
            let mut pairs = Vec::new();
            for (n, gain) in gains.iter().enumerate() {
                let (row, column) = (n / 6, n % 6);
                if let (Some(gain), true) = (gain, row < rows && column < columns) {
                    pairs.push(Pair { row, column, gain: f32::from(*gain) });
                }
            }
            let chosen = assign(rows, columns, &pairs);
            assert_each_once(&chosen);
            prop_assert_eq!(sum(&chosen), brute_force(rows, &pairs, 0, 0));
        }
    }

    #[test]
    fn everything_with_everything_stays_valid_beyond_the_exact_size() {
        let n = EXACT_SIDE + 100;
        let mut seed = 1_u32;
        let mut pairs = Vec::new();
        for row in 0..n {
            for column in 0..n {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                pairs.push(Pair { row, column, gain: 0.1 + (seed >> 8) as f32 / (1 << 24) as f32 });
            }
        }
        let chosen = assign(n, n, &pairs);
        assert_each_once(&chosen);
        assert_eq!(chosen.len(), n);
        let exact: Vec<Pair> = pairs.into_iter().filter(|pair| pair.row < 200 && pair.column < 250).collect();
        let chosen = assign(200, 250, &exact);
        assert_each_once(&chosen);
        assert_eq!(chosen.len(), 200);
        assert!(sum(&chosen) > 200.0 * 1.08, "{}", sum(&chosen));
    }
}
