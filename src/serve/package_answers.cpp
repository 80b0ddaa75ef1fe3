#include "serve/package_answers.h"

#include "fit/tag_answer.h"
#include "model/tokenizer.h"

namespace tailor {
namespace {

Json place_json(const std::string& label, const std::string& text, std::uint32_t begin, std::uint32_t end, float score,
                OffsetCounter& places) {
  const std::size_t start = places.at(begin);
  return {{"label", label},
          {"text", text.substr(begin, end - begin)},
          {"start", start},
          {"end", places.at(end)},
          {"score", score}};
}

Json rows_json(const LabelBackend& labels, const std::vector<NearRow>& rows) {
  Json out = Json::array();
  for (const NearRow& row : rows)
    out.push_back({{"text", row.text},
                   {"label", labels.manifest.labels[static_cast<std::size_t>(row.label)]},
                   {"similarity", row.similarity}});
  return out;
}

void add_label(const PackageManifest& manifest, const LabelAnswer& answer, Json& out) {
  const bool alone = answer.probabilities.empty();
  const std::size_t best = alone ? static_cast<std::size_t>(answer.label) : argmax(answer.probabilities);
  const bool open = !alone && answer.probabilities[best] < manifest.min_confidence;
  out["label"] = open ? Json(nullptr) : Json(manifest.labels[best]);
  if (!alone) out["confidence"] = answer.probabilities[best];
  if (open) out["abstained"] = true;
}

}  // namespace

Json label_json(const LabelBackend& labels, const LabelAnswer& answer, std::size_t index, bool all) {
  const PackageManifest& manifest = labels.manifest;
  Json out{{"index", index}};
  if (manifest.target.kind == PackageTarget::Kind::kNumber) {
    out["value"] = answer.probabilities[0];
    return out;
  }
  if (manifest.target.kind == PackageTarget::Kind::kLabelSet) {
    out["labels"] = Json::array();
    for (std::size_t l = 0; l < answer.probabilities.size(); ++l) {
      if (answer.probabilities[l] >= manifest.target.threshold) out["labels"].push_back(manifest.labels[l]);
    }
  } else {
    add_label(manifest, answer, out);
  }
  if (all && !answer.probabilities.empty()) {
    Json& probabilities = out["probabilities"] = Json::object();
    for (std::size_t l = 0; l < answer.probabilities.size(); ++l)
      probabilities[manifest.labels[l]] = answer.probabilities[l];
  }
  if (!answer.nearest.empty()) out["nearest"] = rows_json(labels, answer.nearest);
  return out;
}

Json entities_json(const TagBackend& tags, const TaggedRow& row, const WordTags& answer, OffsetUnit unit) {
  Json out = Json::array();
  OffsetCounter places(row.text, unit);
  for (const Entity& entity : entities_of(row, answer, tags.manifest.labels))
    out.push_back(place_json(entity.label, row.text, entity.begin, entity.end, entity.p, places));
  return out;
}

Json words_json(const TagBackend& tags, const TaggedRow& row, const WordTags& answer, OffsetUnit unit) {
  Json out = Json::array();
  OffsetCounter places(row.text, unit);
  const std::vector<std::string> names = tag_names(answer.tags, tags.manifest.labels);
  for (std::size_t w = 0; w < row.words.size(); ++w)
    out.push_back(
        place_json(names[w], row.text, row.words[w].begin, row.words[w].end, answer.probabilities[w], places));
  return out;
}

Json span_json(const QuestionRow& row, const SpanAnswer& answer, std::size_t index, OffsetUnit unit) {
  Json out{{"index", index}, {"answer", nullptr}, {"start", nullptr}, {"end", nullptr}, {"score", answer.p}};
  if (answer.begin == answer.end) {
    out["no_answer"] = true;
    return out;
  }
  OffsetCounter places(row.context, unit);
  out["answer"] = answer.text;
  out["start"] = places.at(answer.begin);
  out["end"] = places.at(answer.end);
  return out;
}

std::size_t question_tokens(const SpanBackend& spans, const QuestionRow& row) {
  const Tokenizer& tokenizer = spans.model.tokenizer();
  return tokenizer.count(row.question, true) + tokenizer.count(row.context, false);
}

}  // namespace tailor
