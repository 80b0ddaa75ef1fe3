#include "fit/tag_answer.h"

#include <algorithm>

#include "core/tag_spans.h"
#include "text/unicode.h"

namespace tailor {

std::vector<std::string> tag_names(std::span<const std::int32_t> tags, std::span<const std::string> labels) {
  std::vector<std::string> names;
  for (const std::int32_t tag : tags) names.push_back(labels[static_cast<std::size_t>(tag)]);
  return names;
}

Json tag_answer(const TaggedRow& row, const WordTags& answer, std::span<const std::string> labels, bool marks_spans) {
  std::vector<std::string> words;
  for (const WordSpan& w : row.words) words.push_back(row.text.substr(w.begin, w.end - w.begin));
  Json out{
      {"text", row.text}, {"tokens", words}, {"tags", tag_names(answer.tags, labels)}, {"p", answer.probabilities}};
  if (!marks_spans) return out;
  Json spans = Json::array();
  const std::string_view text = row.text;
  for (const TagSpan& span : spans_of_tags(answer.tags)) {
    const std::uint32_t begin = row.words[span.first].begin, end = row.words[span.end - 1].end;
    const std::size_t start = count_code_points(text.substr(0, begin));
    const auto p = answer.probabilities.begin();
    spans.push_back(Json{{"label", labels[static_cast<std::size_t>(first_tag(span.type))].substr(2)},
                         {"text", std::string(text.substr(begin, end - begin))},
                         {"start", start},
                         {"end", start + count_code_points(text.substr(begin, end - begin))},
                         {"first_token", span.first},
                         {"end_token", span.end},
                         {"p", *std::min_element(p + static_cast<std::ptrdiff_t>(span.first),
                                                 p + static_cast<std::ptrdiff_t>(span.end))}});
  }
  out["spans"] = std::move(spans);
  return out;
}

}  // namespace tailor
