//! Matrices with rows and columns exchanged, on their way to a device.
//!
//! Gets the bytes of matrices as a checkpoint has them, returns them by columns. What holds then: no bit of an element
//! is changed. Never looks at what a number is.

use rayon::prelude::*;

/// `[rows, columns]` as `[columns, rows]`, for each matrix of a list.
pub(super) fn transposed(bytes: &[u8], rows: u64, columns: u64, element_bytes: u64) -> Vec<u8> {
    let (rows, columns) = (rows as usize, columns as usize);
    match element_bytes {
        2 => exchanged::<2>(bytes, rows, columns),
        4 => exchanged::<4>(bytes, rows, columns),
        other => unreachable!("elements of {other} bytes are no weights"),
    }
}

/// Columns that a thread takes at a time: of each row, a line of a cache or two.
const COLUMNS_TOGETHER: usize = 32;

/// [`transposed`], of elements of `N` bytes, on all threads.
fn exchanged<const N: usize>(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let mut out = vec![0; bytes.len()];
    let (from, (to, _)) = (bytes.as_chunks::<N>().0, out.as_chunks_mut::<N>());
    for (from, to) in from.chunks_exact(rows * columns).zip(to.chunks_exact_mut(rows * columns)) {
        to.par_chunks_mut(COLUMNS_TOGETHER * rows).enumerate().for_each(|(block, to)| {
            let first = block * COLUMNS_TOGETHER;
            for (row, from) in from.chunks_exact(columns).enumerate() {
                for (column, element) in from[first..].iter().take(COLUMNS_TOGETHER).enumerate() {
                    to[column * rows + row] = *element;
                }
            }
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::transposed;

    /// Every element of lists of matrices, whatever of a block of columns is left.
    #[test]
    fn rows_and_columns_are_exchanged() {
        for (matrices, rows, columns) in [(1, 1, 1), (1, 3, 31), (2, 5, 32), (1, 7, 33), (3, 40, 65)] {
            let numbers: Vec<u32> = (0..matrices * rows * columns).map(|number| number * 40503).collect();
            let expected = |bytes: usize| -> Vec<u8> {
                let of =
                    |matrix: u32, row: u32, column: u32| numbers[((matrix * rows + row) * columns + column) as usize];
                let all = (0..matrices).flat_map(|m| (0..columns).flat_map(move |c| (0..rows).map(move |r| (m, r, c))));
                all.flat_map(|(m, r, c)| of(m, r, c).to_le_bytes()[..bytes].to_vec()).collect()
            };
            for bytes in [2, 4] {
                let stored: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()[..bytes].to_vec()).collect();
                let turned = transposed(&stored, rows.into(), columns.into(), bytes as u64);
                assert_eq!(turned, expected(bytes), "{matrices} of {rows} x {columns}, {bytes} bytes");
            }
        }
    }
}
