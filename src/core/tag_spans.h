#pragma once
/// Tags of words by number, and the spans that they mark. `tailor` brings every scheme (IOB1, IOB2, BIOES, BILOU) to
/// this one, so that who trains on tags needs no names:
///   0            outside of every span
///   1 + 2 t      the first word of a span of type t
///   2 + 2 t      a further word of it
/// (IOB2: Tjong Kim Sang and Veenstra, arXiv:cs/9907006.)

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tailor {

inline constexpr std::int32_t kOutside = 0;
constexpr std::int32_t first_tag(std::int32_t type) {
  return 1 + 2 * type;
}
constexpr std::int32_t inner_tag(std::int32_t type) {
  return 2 + 2 * type;
}
constexpr std::int32_t type_of_tag(std::int32_t tag) {  // -1: outside
  return (tag + 1) / 2 - 1;
}

/// Words [first, end) of one row.
struct TagSpan {
  std::int32_t type = 0;
  std::size_t first = 0, end = 0;
  bool operator==(const TagSpan&) const = default;
};

/// The spans of a row, from left to right. A further word without a first one before it begins a span, as conlleval and
/// seqeval (its default mode) read it.
inline std::vector<TagSpan> spans_of_tags(std::span<const std::int32_t> tags) {
  std::vector<TagSpan> spans;
  for (std::size_t i = 0; i < tags.size(); ++i) {
    const std::int32_t type = type_of_tag(tags[i]);
    if (type < 0) continue;
    const bool goes_on = i > 0 && tags[i] == inner_tag(type) && type_of_tag(tags[i - 1]) == type;
    if (goes_on)
      spans.back().end = i + 1;
    else
      spans.push_back({type, i, i + 1});
  }
  return spans;
}

/// What precision, recall and F1 are made of.
struct SpanCounts {
  std::int64_t truth = 0, predicted = 0, right = 0;

  double precision() const { return share(predicted); }
  double recall() const { return share(truth); }
  double f1() const {
    return truth + predicted > 0 ? 2 * static_cast<double>(right) / static_cast<double>(truth + predicted) : 0;
  }

 private:
  double share(std::int64_t of) const { return of > 0 ? static_cast<double>(right) / static_cast<double>(of) : 0; }
};

/// Adds the spans of one row: right ones agree in type and both borders.
inline void count_spans(std::span<const std::int32_t> truth, std::span<const std::int32_t> predicted,
                        SpanCounts& counts) {
  const auto wanted = spans_of_tags(truth), said = spans_of_tags(predicted);
  counts.truth += static_cast<std::int64_t>(wanted.size());
  counts.predicted += static_cast<std::int64_t>(said.size());
  for (std::size_t i = 0, j = 0; i < wanted.size() && j < said.size();) {  // both rise and do not overlap
    if (wanted[i] == said[j]) ++counts.right;
    if (wanted[i].end <= said[j].end)
      ++i;
    else
      ++j;
  }
}

}  // namespace tailor
