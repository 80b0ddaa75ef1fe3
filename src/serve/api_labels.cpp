// Classification.

#include <fmt/format.h>

#include <algorithm>

#include "model/tokenizer.h"
#include "serve/api_handlers.h"
#include "serve/drift_monitor.h"
#include "serve/package_answers.h"

namespace tailor {
namespace {

constexpr int kMostNearest = 50;

/// Both texts of {"text", "text_pair"} as the package was trained on them.
std::string read_pair(FieldReader& in, const Json& item, const std::string& path) {
  if (!item.is_object()) {
    in.fail("input", "this package answers pairs of texts: expected {\"text\", \"text_pair\"}, or a list of them");
    return {};
  }
  FieldReader pair(item, path);
  std::string text = pair.required_text("text"), other = pair.required_text("text_pair");
  in.join(pair);
  std::replace(text.begin(), text.end(), kPairSeparator, ' ');
  return text + kPairSeparator + other;
}

std::vector<std::string> read_pairs(FieldReader& in, const ApiLimits& limits) {
  std::vector<std::string> out;
  const Json* input = in.find("input");
  if (input == nullptr) {
    in.fail("input", "is missing", "missing_required_parameter");
  } else if (!input->is_array()) {
    out.push_back(read_pair(in, *input, "input"));
  } else if (input->empty() || input->size() > limits.texts) {
    in.fail("input", fmt::format("expected 1 to {} pairs of texts, got {}", limits.texts, input->size()));
  } else {
    for (std::size_t i = 0; i < input->size() && !in.error(); ++i)
      out.push_back(read_pair(in, (*input)[i], fmt::format("input[{}]", i)));
  }
  return out;
}

ApiFailure classify(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model, FieldReader& in) {
  if (!model->labels)
    return ApiError::invalid(
        "model", fmt::format("'{}' answers with no labels; its capabilities are listed by /v1/models", model->id),
        "model_not_supported");
  const LabelBackend& labels = *model->labels;
  const bool all = in.boolean("probabilities", true);
  const bool label_only = in.boolean("label_only", false);
  if (label_only && !labels.one_label())
    in.fail("label_only", fmt::format("'{}' does not answer with one label", model->id), "unsupported_parameter");
  const auto nearest = static_cast<std::size_t>(in.integer("nearest", 0, 0, kMostNearest));
  if (nearest > 0 && !labels.shows_rows)
    in.fail(
        "nearest",
        fmt::format(
            "'{}' shows no training rows: packages of few-shot-retrieved do, and of neighbours that were not made with "
            "--no-texts, where the server was not told otherwise",
            model->id),
        "unsupported_parameter");
  std::vector<std::string> texts = labels.pairs() ? read_pairs(in, services.limits) : input_texts(in, services.limits);
  if (in.error()) return in.error();
  call->note_ignored(in);
  const bool quick = label_only && labels.manifest.min_confidence <= 0;  // else it may be left open
  std::vector<LabelQuery> queries;
  std::vector<std::string> seen;
  if (services.drift != nullptr) seen = texts;
  for (std::string& text : texts) queries.push_back({std::move(text), quick, nearest});
  if (auto refused = admit_texts(services, call, *labels.batcher, queries)) return refused;
  return compute_texts(
      services, call, *labels.batcher, std::move(queries),
      [call, model, all, label_only, drift = services.drift, seen = std::move(seen)](const auto& batch) {
        Json data = Json::array();
        for (std::size_t i = 0; i < batch.rows.size(); ++i) {
          data.push_back(label_json(*model->labels, batch.rows[i], i, all && !label_only));
          if (label_only) data.back().erase("confidence");
        }
        if (drift != nullptr) drift->on_classified(*model, seen, data);
        call->settle_estimated();
        call->answer(Json{{"object", "list"},
                          {"model", model->id},
                          {"data", std::move(data)},
                          {"milliseconds", 1000 * batch.computed_s}});
      });
}

}  // namespace

void handle_classify(const ApiServices& services, const ApiCallPtr& call) {
  answer_by_model(services, call, classify);
}

}  // namespace tailor
