#include "fit/tag_answer.h"

#include <algorithm>

#include "core/tag_spans.h"
#include "text/offsets.h"

namespace tailor {
namespace {

std::string type_name(std::int32_t type, std::span<const std::string> labels) {
  return labels[static_cast<std::size_t>(first_tag(type))].substr(2);  // after "B-"
}

}  // namespace

std::vector<std::string> tag_names(std::span<const std::int32_t> tags, std::span<const std::string> labels) {
  std::vector<std::string> names;
  for (const std::int32_t tag : tags) names.push_back(labels[static_cast<std::size_t>(tag)]);
  return names;
}

std::vector<Entity> entities_of(const TaggedRow& row, const WordTags& answer, std::span<const std::string> labels) {
  std::vector<Entity> out;
  for (const TagSpan& span : spans_of_tags(answer.tags)) {
    const auto p = answer.probabilities.begin();
    out.push_back(
        {type_name(span.type, labels), row.words[span.first].begin, row.words[span.end - 1].end, span.first, span.end,
         *std::min_element(p + static_cast<std::ptrdiff_t>(span.first), p + static_cast<std::ptrdiff_t>(span.end))});
  }
  return out;
}

std::vector<std::string> entity_labels(std::span<const std::string> labels) {
  std::vector<std::string> out;
  for (std::int32_t type = 0; static_cast<std::size_t>(first_tag(type)) < labels.size(); ++type)
    out.push_back(type_name(type, labels));
  return out;
}

Json tag_answer(const TaggedRow& row, const WordTags& answer, std::span<const std::string> labels, bool marks_spans) {
  std::vector<std::string> words;
  for (const WordSpan& w : row.words) words.push_back(row.text.substr(w.begin, w.end - w.begin));
  Json out{
      {"text", row.text}, {"tokens", words}, {"tags", tag_names(answer.tags, labels)}, {"p", answer.probabilities}};
  if (!marks_spans) return out;
  Json spans = Json::array();
  OffsetCounter places(row.text, OffsetUnit::kCodePoints);
  for (const Entity& entity : entities_of(row, answer, labels)) {
    const std::size_t start = places.at(entity.begin);
    spans.push_back(Json{{"label", entity.label},
                         {"text", row.text.substr(entity.begin, entity.end - entity.begin)},
                         {"start", start},
                         {"end", places.at(entity.end)},
                         {"first_token", entity.first_word},
                         {"end_token", entity.end_word},
                         {"p", entity.p}});
  }
  out["spans"] = std::move(spans);
  return out;
}

}  // namespace tailor
