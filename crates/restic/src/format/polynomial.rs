//! The polynomial that restic's chunker divides by: one for a repository, so that the lengths of chunks tell nothing across repositories.
//!
//! It is irreducible, over the field of two elements, and of degree 53. Bit *i* stands for the power *i* of *x*.

use super::crypto::random;
use super::error::{Error, Result};

/// The degree. That it is prime makes the test short.
const DEGREE: u32 = 53;
/// How many are drawn at most: one in about 27 that have no root is irreducible, so that none is among so many, does not happen.
const MOST_DRAWS: usize = 10_000;

/// Draws an irreducible polynomial.
pub(super) fn draw() -> Result<u64> {
    for _ in 0..MOST_DRAWS {
        let low = u64::from_le_bytes(random()?) & ((1 << DEGREE) - 1);
        let drawn = 1 << DEGREE | low | 1;
        if is_irreducible(drawn) {
            return Ok(drawn);
        }
    }
    Err(Error::Crypto("random numbers"))
}

/// Whether a polynomial of a prime degree is irreducible: it divides x^(2^degree) - x, and has no root (Rabin's test).
fn is_irreducible(polynomial: u64) -> bool {
    let Some(degree) = polynomial.checked_ilog2() else { return false };
    let has_root = polynomial & 1 == 0 || polynomial.count_ones().is_multiple_of(2);
    let x = 0b10;
    let power = (0..degree).fold(x, |power, _| multiply(power, power, polynomial, degree));
    !has_root && power == x
}

/// The product of two polynomials that are shorter than the modulus.
fn multiply(a: u64, mut b: u64, modulus: u64, degree: u32) -> u64 {
    let (mut product, mut shifted) = (0, a);
    while b != 0 {
        if b & 1 == 1 {
            product ^= shifted;
        }
        b >>= 1;
        shifted <<= 1;
        if shifted >> degree & 1 == 1 {
            shifted ^= modulus;
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slow and obvious way: nothing of a lower degree divides it.
    fn divides_by_nothing(polynomial: u64) -> bool {
        let remainder = |mut a: u64, by: u64| {
            while a != 0 && a.ilog2() >= by.ilog2() {
                a ^= by << (a.ilog2() - by.ilog2());
            }
            a
        };
        (2..1 << polynomial.ilog2()).all(|by| remainder(polynomial, by) != 0)
    }

    #[test]
    fn the_test_agrees_with_trial_division_for_small_prime_degrees() {
        for degree in [2, 3, 5, 7, 11] {
            for polynomial in 1_u64 << degree..2 << degree {
                assert_eq!(is_irreducible(polynomial), divides_by_nothing(polynomial), "{polynomial:b}");
            }
        }
    }

    #[test]
    fn what_is_drawn_is_irreducible_and_of_the_degree() {
        for _ in 0..10 {
            let drawn = draw().expect("there are random numbers");
            assert_eq!(drawn.ilog2(), DEGREE);
            assert!(is_irreducible(drawn));
            // A product with a polynomial of degree 1 is none.
            assert!(!is_irreducible(drawn ^ 1) && !is_irreducible(drawn ^ 0b10));
        }
    }
}
