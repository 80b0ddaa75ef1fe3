#pragma once
/// Texts that are the same, or nearly: exact duplicates by key, near duplicates by MinHash with locality-sensitive
/// hashing (Broder 1997; Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.3-3.4), verified by exact Jaccard.
///
/// What is compared, on skeleton(text) (letters and digits, folded, single spaces; text/unicode.h):
///   short texts, up to 40 words:  the set of its character 5-shingles (code points; a shorter text is one shingle),
///   longer texts:                 the set of its word 3-shingles.
/// Texts of 30 to 40 words have both sets, so that no pair falls between the two kinds; a pair is near where it has a
/// Jaccard similarity of at least `threshold` in a kind that both texts have. Scripts without spaces count as short.
///
/// 128 hash functions; a pair is a candidate where one of 25 bands of 5 agrees (a pair of similarity 0.8 is missed with
/// probability 5e-5, one of 0.9 with 1e-10); candidates whose 128 values estimate far below the threshold are dropped
/// (4 standard errors), the rest verified. Where more than 256 different texts share a band, each is compared with the
/// 256 next of them only.
/// The result depends on texts and seed alone. Cost: about 6 us of CPU a short text; memory about 250 bytes a text
/// beside the skeletons.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tailor {

struct NearDuplicateOptions {
  double threshold = 0.8;  // of Jaccard similarity, in (0.5, 1]
  std::uint64_t seed = 20240601;
};

struct NearPair {
  std::uint32_t first = 0;  // row; in one set first < second
  std::uint32_t second = 0;
  double similarity = 0;  // exact Jaccard of the shingle sets, the larger one where both kinds apply
};

/// Jaccard similarity of two texts as defined above; 0 where they have no kind in common.
double text_similarity(std::string_view a, std::string_view b);

/// What is known of one set. Exact duplicates have one duplicate_key() (text/unicode.h).
struct DuplicateGroups {
  std::vector<std::uint32_t> group;     // per row: smallest row of those linked with it by exact or near pairs
  std::vector<std::uint32_t> exact_of;  // per row: first row with the same key; itself where it is the first
  std::vector<NearPair> near;  // pairs of rows that are near but not exact, each row the first of its key; ordered
};
DuplicateGroups find_duplicates(std::span<const std::string> texts, const NearDuplicateOptions& options = {});

/// Pairs across two sets: `first` a row of `reference`, `second` a row of `texts`, ordered by (second, first). Exact
/// pairs have similarity 1 and come once per row of `texts` (with the first such row of `reference`).
struct CrossDuplicates {
  std::vector<NearPair> exact;
  std::vector<NearPair> near;  // not for rows of `texts` that have an exact one
};
CrossDuplicates find_cross_duplicates(std::span<const std::string> reference, std::span<const std::string> texts,
                                      const NearDuplicateOptions& options = {});

}  // namespace tailor
