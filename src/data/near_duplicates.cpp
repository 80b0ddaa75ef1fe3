#include "data/near_duplicates.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "core/hash.h"
#include "core/rng.h"
#include "text/unicode.h"

namespace tailor {
namespace {

constexpr std::size_t kPermutations = 128;
constexpr std::size_t kBands = 25;
constexpr std::size_t kRowsPerBand = 5;
constexpr std::size_t kCharacterShingle = 5;
constexpr std::size_t kWordShingle = 3;
constexpr std::size_t kShortWords = 40;
constexpr std::size_t kLongWords = 30;  // a similarity above 0.8 allows 40 words beside 32, less with repeated words
constexpr std::size_t kBucketReach = 256;

enum class Kind { kCharacters, kWords };

std::size_t count_words(std::string_view skeleton) {
  return static_cast<std::size_t>(std::count(skeleton.begin(), skeleton.end(), ' ')) + 1;
}
bool has_kind(std::string_view skeleton, Kind kind) {
  const std::size_t n = count_words(skeleton);
  return kind == Kind::kCharacters ? n <= kShortWords : n >= kLongWords;
}

/// Where the units (code points or words) begin, and the end; `out` is reused.
void unit_starts(std::string_view skeleton, Kind kind, std::vector<std::uint32_t>& out) {
  out.clear();
  for (std::size_t i = 0; i < skeleton.size(); ++i) {
    const bool start = kind == Kind::kCharacters ? (static_cast<unsigned char>(skeleton[i]) & 0xC0) != 0x80
                                                 : i == 0 || skeleton[i - 1] == ' ';
    if (start) out.push_back(static_cast<std::uint32_t>(i));
  }
  out.push_back(static_cast<std::uint32_t>(skeleton.size()));
}

/// Hashes of the shingles, with repeats.
void shingles(std::string_view skeleton, Kind kind, std::vector<std::uint32_t>& starts,
              std::vector<std::uint64_t>& out) {
  const std::size_t length = kind == Kind::kCharacters ? kCharacterShingle : kWordShingle;
  unit_starts(skeleton, kind, starts);
  out.clear();
  const std::size_t units = starts.size() - 1;
  if (units <= length) {
    out.push_back(hash64(skeleton));
    return;
  }
  const std::size_t gap = kind == Kind::kWords ? 1 : 0;  // the space after the last word
  for (std::size_t i = 0; i + length <= units; ++i) {
    const std::size_t end = i + length == units ? starts[i + length] : starts[i + length] - gap;
    out.push_back(hash64(skeleton.substr(starts[i], end - starts[i])));
  }
}

std::vector<std::uint64_t> shingle_set(std::string_view skeleton, Kind kind) {
  std::vector<std::uint32_t> starts;
  std::vector<std::uint64_t> set;
  shingles(skeleton, kind, starts, set);
  std::sort(set.begin(), set.end());
  set.erase(std::unique(set.begin(), set.end()), set.end());
  return set;
}

double jaccard(std::string_view a, std::string_view b, Kind kind) {
  const auto first = shingle_set(a, kind);
  const auto second = shingle_set(b, kind);
  std::size_t common = 0;
  for (std::size_t i = 0, j = 0; i < first.size() && j < second.size();) {
    if (first[i] == second[j]) {
      ++common;
      ++i;
      ++j;
    } else if (first[i] < second[j])
      ++i;
    else
      ++j;
  }
  return static_cast<double>(common) / static_cast<double>(first.size() + second.size() - common);
}

double skeleton_similarity(std::string_view a, std::string_view b) {
  double best = 0;
  for (const Kind kind : {Kind::kCharacters, Kind::kWords}) {
    if (has_kind(a, kind) && has_kind(b, kind)) best = std::max(best, jaccard(a, b, kind));
  }
  return best;
}

/// The hash functions: h_i(x) = mix32((x xor b_i) * a_i).
class MinHash {
 public:
  explicit MinHash(std::uint64_t seed) {
    Rng rng(seed);
    for (std::size_t i = 0; i < kPermutations; ++i) {
      const std::uint64_t bits = rng.bits();
      factor_[i] = static_cast<std::uint32_t>(bits) | 1U;
      mask_[i] = static_cast<std::uint32_t>(bits >> 32);
    }
  }
  void sign(std::span<const std::uint64_t> hashes, std::array<std::uint32_t, kPermutations>& signature) const {
    signature.fill(0xFFFFFFFFU);
    for (const std::uint64_t hash : hashes) {
      const auto x = static_cast<std::uint32_t>(hash);
      for (std::size_t i = 0; i < kPermutations; ++i) {
        std::uint32_t v = (x ^ mask_[i]) * factor_[i];
        v ^= v >> 15;
        v *= 0x2C1B3C6DU;
        v ^= v >> 13;
        signature[i] = std::min(signature[i], v);
      }
    }
  }

 private:
  std::array<std::uint32_t, kPermutations> factor_{};
  std::array<std::uint32_t, kPermutations> mask_{};
};

/// What is kept of a signature: a key a band, and the low byte of each value (b-bit minwise hashing, Li and Koenig
/// 2010).
struct Sketch {
  std::array<std::uint32_t, kBands> bands;
  std::array<std::uint8_t, kPermutations> bytes;
};

Sketch make_sketch(const std::array<std::uint32_t, kPermutations>& signature) {
  Sketch sketch{};
  for (std::size_t band = 0; band < kBands; ++band) {
    std::uint64_t key = band;
    for (std::size_t i = 0; i < kRowsPerBand; ++i) key = Rng::mix(key ^ signature[band * kRowsPerBand + i]);
    sketch.bands[band] = static_cast<std::uint32_t>(key);
  }
  for (std::size_t i = 0; i < kPermutations; ++i) sketch.bytes[i] = static_cast<std::uint8_t>(signature[i]);
  return sketch;
}

double estimate(const Sketch& a, const Sketch& b) {
  unsigned same = 0;
  for (std::size_t i = 0; i < kPermutations; ++i) same += a.bytes[i] == b.bytes[i];
  return static_cast<double>(same) / kPermutations;
}

/// Verified pairs (positions in `skeletons`) of one kind. `side` tells the sets apart; empty: all pairs count.
void pairs_of_kind(std::span<const std::string> skeletons, std::span<const std::uint8_t> side, Kind kind,
                   const NearDuplicateOptions& options, std::vector<NearPair>& out) {
  std::vector<std::uint32_t> rows;
  for (std::size_t row = 0; row < skeletons.size(); ++row) {
    if (has_kind(skeletons[row], kind)) rows.push_back(static_cast<std::uint32_t>(row));
  }
  if (rows.size() < 2) return;
  const MinHash hash(options.seed);
  std::vector<Sketch> sketches(rows.size());
  std::vector<std::uint32_t> starts;
  std::vector<std::uint64_t> hashes;
  std::array<std::uint32_t, kPermutations> signature{};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    shingles(skeletons[rows[i]], kind, starts, hashes);
    hash.sign(hashes, signature);
    sketches[i] = make_sketch(signature);
  }

  const double standard_error = std::sqrt(options.threshold * (1 - options.threshold) / kPermutations);
  const double least_estimate = options.threshold - 4 * standard_error;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> entries(rows.size());  // key, position in rows
  for (std::size_t band = 0; band < kBands; ++band) {
    for (std::size_t i = 0; i < rows.size(); ++i) entries[i] = {sketches[i].bands[band], static_cast<std::uint32_t>(i)};
    std::sort(entries.begin(), entries.end());
    for (std::size_t begin = 0; begin < entries.size();) {
      std::size_t end = begin + 1;
      while (end < entries.size() && entries[end].first == entries[begin].first) ++end;
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t reach = std::min(end, i + 1 + kBucketReach);
        for (std::size_t j = i + 1; j < reach; ++j) {
          const std::uint32_t a = entries[i].second;
          const std::uint32_t b = entries[j].second;
          if (!side.empty() && side[rows[a]] == side[rows[b]]) continue;
          const Sketch& first = sketches[a];
          const Sketch& second = sketches[b];
          const bool seen =
              std::equal(first.bands.begin(), first.bands.begin() + static_cast<std::ptrdiff_t>(band),
                         second.bands.begin(), [](std::uint32_t x, std::uint32_t y) { return x != y; }) == false;
          if (seen || estimate(first, second) < least_estimate) continue;
          const double similarity = jaccard(skeletons[rows[a]], skeletons[rows[b]], kind);
          if (similarity >= options.threshold) out.push_back({rows[a], rows[b], similarity});
        }
      }
      begin = end;
    }
  }
}

/// All verified pairs, ordered, each once with its greater similarity.
std::vector<NearPair> verified_pairs(std::span<const std::string> skeletons, std::span<const std::uint8_t> side,
                                     const NearDuplicateOptions& options) {
  std::vector<NearPair> pairs;
  for (const Kind kind : {Kind::kCharacters, Kind::kWords}) pairs_of_kind(skeletons, side, kind, options, pairs);
  std::sort(pairs.begin(), pairs.end(), [](const NearPair& a, const NearPair& b) {
    return std::tie(a.first, a.second, b.similarity) < std::tie(b.first, b.second, a.similarity);
  });
  const auto same = [](const NearPair& a, const NearPair& b) { return a.first == b.first && a.second == b.second; };
  pairs.erase(std::unique(pairs.begin(), pairs.end(), same), pairs.end());
  return pairs;
}

/// For each string the position of the first equal one.
std::vector<std::uint32_t> first_equal(std::span<const std::string> strings) {
  std::unordered_map<std::string_view, std::uint32_t> first;
  first.reserve(strings.size());
  std::vector<std::uint32_t> out(strings.size());
  for (std::size_t i = 0; i < strings.size(); ++i)
    out[i] = first.emplace(strings[i], static_cast<std::uint32_t>(i)).first->second;
  return out;
}

/// The first text of each distinct skeleton, so that copies cost nothing and never fill a band.
struct Distinct {
  std::vector<std::string> skeletons;
  std::vector<std::uint32_t> row;          // of each distinct skeleton, its first row
  std::vector<std::uint32_t> skeleton_of;  // per row, its position in `skeletons`
};

Distinct distinct_skeletons(std::span<const std::string> texts) {
  Distinct distinct;
  std::unordered_map<std::string, std::uint32_t> seen;
  seen.reserve(texts.size());
  for (std::size_t row = 0; row < texts.size(); ++row) {
    const auto [entry, added] = seen.emplace(skeleton(texts[row]), static_cast<std::uint32_t>(distinct.row.size()));
    if (added) {
      distinct.skeletons.push_back(entry->first);
      distinct.row.push_back(static_cast<std::uint32_t>(row));
    }
    distinct.skeleton_of.push_back(entry->second);
  }
  return distinct;
}

std::vector<std::string> keys_of(std::span<const std::string> texts) {
  std::vector<std::string> keys;
  keys.reserve(texts.size());
  for (const std::string& text : texts) keys.push_back(duplicate_key(text));
  return keys;
}

}  // namespace

double text_similarity(std::string_view a, std::string_view b) {
  return skeleton_similarity(skeleton(a), skeleton(b));
}

DuplicateGroups find_duplicates(std::span<const std::string> texts, const NearDuplicateOptions& options) {
  DuplicateGroups result;
  result.exact_of = first_equal(keys_of(texts));
  const Distinct distinct = distinct_skeletons(texts);

  result.group.resize(texts.size());
  std::iota(result.group.begin(), result.group.end(), 0U);
  const auto root = [&](std::uint32_t row) {
    while (result.group[row] != row) row = result.group[row] = result.group[result.group[row]];
    return row;
  };
  const auto join = [&](std::uint32_t a, std::uint32_t b) {
    a = root(a);
    b = root(b);
    result.group[std::max(a, b)] = std::min(a, b);
  };

  for (std::uint32_t row = 0; row < texts.size(); ++row) {
    const std::uint32_t first = distinct.row[distinct.skeleton_of[row]];
    if (first == row) continue;
    join(first, row);
    if (result.exact_of[row] == row) result.near.push_back({first, row, 1.0});  // differs in punctuation only
  }
  for (const NearPair& pair : verified_pairs(distinct.skeletons, {}, options)) {
    const std::uint32_t a = distinct.row[pair.first];
    const std::uint32_t b = distinct.row[pair.second];
    join(a, b);
    result.near.push_back({std::min(a, b), std::max(a, b), pair.similarity});
  }
  for (std::uint32_t row = 0; row < texts.size(); ++row) result.group[row] = root(row);
  std::sort(result.near.begin(), result.near.end(), [](const NearPair& a, const NearPair& b) {
    return std::tie(a.first, a.second) < std::tie(b.first, b.second);
  });
  return result;
}

CrossDuplicates find_cross_duplicates(std::span<const std::string> reference, std::span<const std::string> texts,
                                      const NearDuplicateOptions& options) {
  CrossDuplicates result;
  const std::vector<std::string> reference_keys = keys_of(reference);
  std::unordered_map<std::string_view, std::uint32_t> first;
  first.reserve(reference.size());
  for (std::size_t row = 0; row < reference.size(); ++row)
    first.emplace(reference_keys[row], static_cast<std::uint32_t>(row));
  std::vector<bool> is_exact(texts.size(), false);
  for (std::size_t row = 0; row < texts.size(); ++row) {
    const auto found = first.find(duplicate_key(texts[row]));
    if (found == first.end()) continue;
    is_exact[row] = true;
    result.exact.push_back({found->second, static_cast<std::uint32_t>(row), 1.0});
  }

  const Distinct left = distinct_skeletons(reference);
  const Distinct right = distinct_skeletons(texts);
  std::vector<std::string> skeletons = left.skeletons;
  skeletons.insert(skeletons.end(), right.skeletons.begin(), right.skeletons.end());
  std::vector<std::uint8_t> side(skeletons.size(), 0);
  std::fill(side.begin() + static_cast<std::ptrdiff_t>(left.skeletons.size()), side.end(), std::uint8_t{1});
  std::vector<std::vector<NearPair>> of_right(right.skeletons.size());
  for (const NearPair& pair : verified_pairs(skeletons, side, options)) {
    const auto [low, high] = std::minmax(pair.first, pair.second);
    of_right[high - left.skeletons.size()].push_back({left.row[low], 0, pair.similarity});
  }
  for (std::uint32_t row = 0; row < texts.size(); ++row) {
    if (is_exact[row]) continue;
    for (const NearPair& pair : of_right[right.skeleton_of[row]])
      result.near.push_back({pair.first, row, pair.similarity});
  }
  std::sort(result.near.begin(), result.near.end(), [](const NearPair& a, const NearPair& b) {
    return std::tie(a.second, a.first) < std::tie(b.second, b.first);
  });
  return result;
}

}  // namespace tailor
