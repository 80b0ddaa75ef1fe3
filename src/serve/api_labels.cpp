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

void classify(const ApiServices& services, const ApiCallPtr& call, ApiResult<Json> body) {
  if (!body.has_value()) return call->answer(body.error());
  FieldReader in(*body);
  ApiResult<ServedModelPtr> named = named_model(services, in);
  if (!named.has_value()) return call->answer(named.error());
  const ServedModelPtr model = *named;
  call->note(*model);
  if (!model->labels)
    return call->answer(ApiError::invalid("model", fmt::format("'{}' answers with no labels; its capabilities are listed by /v1/models", model->id), "model_not_supported"));
  const bool all = in.boolean("probabilities", true);
  if (!in.has("input")) in.fail("input", "is missing", "missing_required_parameter");
  std::vector<std::string> texts = in.texts("input", services.limits.texts, services.limits.body_bytes);
  if (!in.error() && texts.empty()) in.fail("input", "expected at least one text");
  if (in.error()) return call->answer(*in.error());
  for (const std::string& name : in.unread()) call->ignored.push_back(name);
  if (const auto refused = call->reserve(0)) return call->answer(*refused);
  const auto done = [call, model, all](Result<BatchedRows> rows) {
    if (!rows.has_value()) return call->answer(api_error(rows.error()));
    Json data = Json::array();
    for (std::size_t i = 0; i < rows->rows.rows; ++i)
      data.push_back(answer_of(model->labels->manifest, rows->rows.row(i), i, all));
    Json out{{"object", "list"}, {"model", model->id}, {"data", std::move(data)}, {"milliseconds", 1000 * rows->computed_s}};
    call->settle_estimated();
    call->answer(out);
  };
  const auto gone = [responder = call->responder] { return responder->gone(); };
  if (const Status status = model->labels->batcher->submit(std::move(texts), done, gone); !status.has_value())
    call->answer(api_error(status.error()));
}

}  // namespace

void handle_classify(const ApiServices& services, const ApiCallPtr& call) {
  classify(services, call, parse_body(call->request.body));
}

void answer_chat_with_label(const ApiServices& /*services*/, const ApiCallPtr& call, const ServedModelPtr& model,
                            const std::string& text, bool stream, bool include_usage) {
  if (const auto refused = call->reserve(0)) return call->answer(*refused);
  const auto done = [call, model, stream, include_usage](Result<BatchedRows> rows) {
    if (!rows.has_value()) return call->answer(api_error(rows.error()));
    call->settle_estimated();
    const Json answer = answer_of(model->labels->manifest, rows->rows.row(0), 0, false);
    std::string content;
    if (answer.contains("value"))
      content = dump_json(answer["value"]);
    else if (answer.contains("labels"))
      for (const Json& label : answer["labels"])
        content += (content.empty() ? "" : model->labels->manifest.target.separator) + label.get<std::string>();
    else if (answer["label"].is_string())
      content = answer["label"].get<std::string>();
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
  };
  const auto gone = [responder = call->responder] { return responder->gone(); };
  if (const Status status = model->labels->batcher->submit({text}, done, gone); !status.has_value())
    call->answer(api_error(status.error()));
}

}  // namespace tailor
