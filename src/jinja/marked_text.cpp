#include "jinja/marked_text.h"

#include <algorithm>

namespace tailor {
namespace {

void add_range(std::vector<ByteRange>& ranges, ByteRange range) {
  if (range.begin == range.end) return;
  if (!ranges.empty() && ranges.back().end == range.begin)
    ranges.back().end = range.end;
  else
    ranges.push_back(range);
}

/// The first range that ends after `at`.
std::vector<ByteRange>::const_iterator range_after(const std::vector<ByteRange>& ranges, std::size_t at) {
  return std::upper_bound(ranges.begin(), ranges.end(), at,
                          [](std::size_t place, const ByteRange& range) { return place < range.end; });
}

}  // namespace

MarkedText MarkedText::of_people(std::string_view text) {
  MarkedText out;
  out.append_as(text, true);
  return out;
}

void MarkedText::append_as(std::string_view text, bool is_foreign) {
  if (is_foreign) add_range(foreign, {bytes.size(), bytes.size() + text.size()});
  bytes += text;
}

void MarkedText::append(const MarkedText& text) {
  const std::size_t shift = bytes.size();
  for (const ByteRange& range : text.foreign) add_range(foreign, {range.begin + shift, range.end + shift});
  bytes += text.bytes;
}

MarkedText MarkedText::part(std::size_t begin, std::size_t end) const {
  MarkedText out;
  end = std::min(end, bytes.size());
  if (begin >= end) return out;
  out.bytes = bytes.substr(begin, end - begin);
  for (auto range = range_after(foreign, begin); range != foreign.end() && range->begin < end; ++range)
    add_range(out.foreign, {std::max(range->begin, begin) - begin, std::min(range->end, end) - begin});
  return out;
}

std::size_t MarkedText::end_of_run(std::size_t at) const {
  const auto range = range_after(foreign, at);
  if (range == foreign.end()) return bytes.size();
  return range->begin <= at ? range->end : range->begin;
}

bool MarkedText::is_foreign(std::size_t at) const {
  const auto range = range_after(foreign, at);
  return range != foreign.end() && range->begin <= at;
}

}  // namespace tailor
