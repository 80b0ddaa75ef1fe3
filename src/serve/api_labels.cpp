// Classification, and label packages as chat models.

#include <fmt/format.h>

#include "serve/api_handlers.h"
#include "store/random_id.h"

namespace tailor {
namespace {

/// One text's answer, as /v1/classify tells it.
Json answer_of(const PackageManifest& manifest, std::span<const float> row, std::size_t index, bool all) {
  Json out{{"index", index}};
  const PackageTarget& target = manifest.target;
  if (target.kind == PackageTarget::Kind::kNumber) {
    out["value"] = row[0];
    return out;
  }
  if (target.kind == PackageTarget::Kind::kLabelSet) {
    Json labels = Json::array();
    for (std::size_t l = 0; l < row.size(); ++l) {
      if (row[l] >= target.threshold) labels.push_back(manifest.labels[l]);
    }
    out["labels"] = std::move(labels);
  } else {
    const std::size_t best = argmax(row);
    const bool open = row[best] < manifest.min_confidence;
    out["label"] = open ? Json(nullptr) : Json(manifest.labels[best]);
    out["confidence"] = row[best];
    if (open) out["abstained"] = true;
  }
  if (all) {
    Json probabilities = Json::object();
    for (std::size_t l = 0; l < row.size(); ++l) probabilities[manifest.labels[l]] = row[l];
    out["probabilities"] = std::move(probabilities);
  }
  return out;
}

ApiFailure classify(const ApiServices& services, const ApiCallPtr& call) {
  TAILOR_TRY(const Json body, parse_body(call->request.body));
  FieldReader in(body);
  TAILOR_TRY(const ServedModelPtr model, named_model(services, in));
  call->note(*model);
  if (!model->labels)
    return ApiError::invalid("model", fmt::format("'{}' answers with no labels; its capabilities are listed by /v1/models", model->id), "model_not_supported");
  const bool all = in.boolean("probabilities", true);
  if (!in.has("input")) in.fail("input", "is missing", "missing_required_parameter");
  std::vector<std::string> texts = in.texts("input", services.limits.texts, services.limits.body_bytes);
  if (!in.error() && texts.empty()) in.fail("input", "expected at least one text");
  if (in.error()) return in.error();
  call->note_ignored(in);
  if (auto refused = call->reserve(0)) return refused;
  return compute_texts(call, *model->labels->batcher, std::move(texts), [call, model, all](const BatchedRows& batch) {
    Json data = Json::array();
    for (std::size_t i = 0; i < batch.rows.rows; ++i)
      data.push_back(answer_of(model->labels->manifest, batch.rows.row(i), i, all));
    call->settle_estimated();
    call->answer(Json{{"object", "list"}, {"model", model->id}, {"data", std::move(data)}, {"milliseconds", 1000 * batch.computed_s}});
  });
}

/// What a chat's message holds in the place of words.
std::string as_text(const PackageManifest& manifest, const Json& answer) {
  if (answer.contains("value")) return dump_json(answer["value"]);
  std::string content;
  if (answer.contains("labels")) {
    for (const Json& label : answer["labels"])
      content += (content.empty() ? "" : manifest.target.separator) + label.get<std::string>();
  } else if (answer["label"].is_string()) {
    content = answer["label"].get<std::string>();
  }
  return content;
}

}  // namespace

void handle_classify(const ApiServices& services, const ApiCallPtr& call) {
  if (const auto error = classify(services, call)) call->answer(*error);
}

ApiFailure answer_chat_with_label(const ApiCallPtr& call, const ServedModelPtr& model, const std::string& text, bool stream,
                                  bool include_usage) {
  if (auto refused = call->reserve(0)) return refused;
  return compute_texts(call, *model->labels->batcher, {text}, [call, model, stream, include_usage](const BatchedRows& batch) {
    call->settle_estimated();
    const PackageManifest& manifest = model->labels->manifest;
    const std::string content = as_text(manifest, answer_of(manifest, batch.rows.row(0), 0, false));
    const Json usage{{"prompt_tokens", 0}, {"completion_tokens", 0}, {"total_tokens", 0}};  // labels are no tokens
    Json out{{"id", random_id("chatcmpl-", 24)}, {"object", stream ? "chat.completion.chunk" : "chat.completion"},
             {"created", unix_seconds()},    {"model", model->id},
             {"system_fingerprint", model->fingerprint}};
    if (!stream) {
      out["choices"] = Json::array({{{"index", 0},
                                     {"message", {{"role", "assistant"}, {"content", content}, {"refusal", nullptr}}},
                                     {"logprobs", nullptr},
                                     {"finish_reason", "stop"}}});
      out["usage"] = usage;
      return call->answer(out);
    }
    call->responder->begin_stream(200, call->headers("text/event-stream"));
    const auto send = [&](Json choices, const Json& with_usage) {
      Json chunk = out;
      chunk["choices"] = std::move(choices);
      if (!with_usage.is_null()) chunk["usage"] = with_usage;
      call->responder->write("data: " + dump_json(chunk) + "\n\n");
    };
    const auto choice = [](Json delta, Json reason) {
      return Json::array({{{"index", 0}, {"delta", std::move(delta)}, {"logprobs", nullptr}, {"finish_reason", std::move(reason)}}});
    };
    send(choice({{"role", "assistant"}, {"content", content}}, nullptr), nullptr);
    send(choice(Json::object(), "stop"), nullptr);
    if (include_usage) send(Json::array(), usage);
    call->responder->write("data: [DONE]\n\n");
    call->responder->finish();
  });
}

}  // namespace tailor
