// Packages as chat models, for clients that know nothing else.

#include <fmt/format.h>

#include <algorithm>

#include "model/tokenizer.h"
#include "serve/api_handlers.h"
#include "serve/drift_monitor.h"
#include "serve/package_answers.h"
#include "serve/response_format.h"
#include "serve/tool_calls.h"
#include "store/random_id.h"

namespace tailor {
namespace {

struct ChatStyle {
  bool stream = false, include_usage = false;
};

/// One message, whole or as the events of a stream.
void send_message(const ApiCall& call, const ServedModel& model, const ChatStyle& style, const std::string& content,
                  std::size_t tokens) {
  const Json usage{
      {"prompt_tokens", tokens}, {"completion_tokens", 0}, {"total_tokens", tokens}};  // labels are no tokens
  Json out{{"id", random_id("chatcmpl-", 24)},
           {"object", style.stream ? "chat.completion.chunk" : "chat.completion"},
           {"created", unix_seconds()},
           {"model", model.id},
           {"system_fingerprint", model.fingerprint}};
  if (!style.stream) {
    out["choices"] = Json::array({{{"index", 0},
                                   {"message", {{"role", "assistant"}, {"content", content}, {"refusal", nullptr}}},
                                   {"logprobs", nullptr},
                                   {"finish_reason", "stop"}}});
    out["usage"] = usage;
    return call.answer(out);
  }
  call.responder->begin_stream(200, call.headers("text/event-stream"));
  const auto send = [&](Json choices, const Json& with_usage) {
    Json chunk = out;
    chunk["choices"] = std::move(choices);
    if (!with_usage.is_null()) chunk["usage"] = with_usage;
    call.responder->write("data: " + dump_json(chunk) + "\n\n");
  };
  const auto choice = [](Json delta, Json reason) {
    return Json::array(
        {{{"index", 0}, {"delta", std::move(delta)}, {"logprobs", nullptr}, {"finish_reason", std::move(reason)}}});
  };
  send(choice({{"role", "assistant"}, {"content", ""}}, nullptr), nullptr);
  if (!content.empty()) send(choice({{"content", content}}, nullptr), nullptr);
  send(choice(Json::object(), "stop"), nullptr);
  if (style.include_usage) send(Json::array(), usage);
  call.responder->write("data: [DONE]\n\n");
  call.responder->finish();
}

/// What a message holds in the place of words.
std::string label_text(const PackageManifest& manifest, const Json& answer) {
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

ApiFailure chat_with_label(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model,
                           const std::string& text, ChatStyle style) {
  const LabelBackend& labels = *model->labels;
  if (labels.pairs())
    return ApiError::invalid(
        "model",
        fmt::format("'{}' answers pairs of texts, which a conversation has no place for; ask at /v1/classify",
                    model->id),
        "model_not_supported");
  std::vector<LabelQuery> queries{{text, labels.one_label() && labels.manifest.min_confidence <= 0, 0}};
  if (auto refused = admit_texts(services, call, *labels.batcher, queries)) return refused;
  return compute_texts(services, call, *labels.batcher, std::move(queries),
                       [call, model, style, drift = services.drift, text](const auto& batch) {
                         const Json answer = label_json(*model->labels, batch.rows[0], 0, false);
                         if (drift != nullptr) drift->on_classified(*model, {&text, 1}, Json::array({answer}));
                         call->settle_estimated();
                         send_message(*call, *model, style, label_text(model->labels->manifest, answer), 0);
                       });
}

std::optional<ApiError> too_long(std::size_t bytes, const ApiLimits& limits) {
  if (bytes <= limits.read_bytes) return std::nullopt;
  return ApiError::invalid("messages",
                           fmt::format("they have {} bytes, {} may be read for one request", bytes, limits.read_bytes));
}

ApiFailure chat_with_tags(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model,
                          const std::string& text, ChatStyle style) {
  if (auto error = too_long(text.size(), services.limits)) return error;
  if (auto refused = admit_texts(services, call, *model->tags->batcher, std::vector{text})) return refused;
  const std::size_t tokens = model->tags->tagger.tokenizer().count(text, true);
  call->note(*model, tokens);
  const TaggedRow row = untagged_row(text);
  return compute_texts(
      services, call, *model->tags->batcher, std::vector{row}, [call, model, row, style, tokens](const auto& batch) {
        const auto shape = model->tags->manifest.target.spans ? entities_json : words_json;
        call->settle(static_cast<std::int64_t>(tokens));
        send_message(*call, *model, style, dump_json(shape(*model->tags, row, batch.rows[0], OffsetUnit::kCodePoints)),
                     tokens);
      });
}

ApiFailure chat_with_span(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model,
                          QuestionRow row, ChatStyle style) {
  if (row.context.empty())
    return ApiError::invalid(
        "messages", "a question needs a text that answers it: give the text in an earlier message, of system or user");
  if (auto error = too_long(bytes_of(row), services.limits)) return error;
  if (auto refused = admit_texts(services, call, *model->spans->batcher, std::vector{row})) return refused;
  const std::size_t tokens = question_tokens(*model->spans, row);
  call->note(*model, tokens);
  return compute_texts(services, call, *model->spans->batcher, std::vector{std::move(row)},
                       [call, model, style, tokens](const auto& batch) {
                         call->settle(static_cast<std::int64_t>(tokens));
                         send_message(*call, *model, style, batch.rows[0].text, tokens);
                       });
}

/// What the answer of a package cannot keep to is refused.
void refuse_forms(FieldReader& in) {
  constexpr const char* kCode = "unsupported_parameter";
  if (const auto spec = read_constraint(in))
    in.fail(ApiError::invalid(spec->where.empty() ? "response_format" : spec->where,
                              "a package answers with its label, entities or answer, in no other form", kCode));
  if (in.integer("n", 1, 1, 128) > 1) in.fail("n", "a package answers once", kCode);
  const ToolRequest tools = read_tool_request(in);
  if (!tools.forced.empty()) in.fail("tool_choice", "a package calls no tools", kCode);
  if (!tools.tools.is_null()) in.ignore("tools");
}

}  // namespace

ApiFailure answer_chat_by_package(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model,
                                  const std::vector<ChatMessage>& messages, FieldReader& in) {
  ChatStyle style{.stream = in.boolean("stream", false)};
  if (const Json* options = in.find("stream_options")) {
    FieldReader inner(*options, "stream_options");
    style.include_usage = inner.boolean("include_usage", false);
    in.join(inner);
    if (!style.stream) in.fail("stream_options", "is for streams: set 'stream' to true");
  }
  refuse_forms(in);
  if (in.error()) return in.error();
  call->note_ignored(in);
  const auto last =
      std::find_if(messages.rbegin(), messages.rend(), [](const ChatMessage& m) { return m.role == "user"; });
  if (last == messages.rend()) return ApiError::invalid("messages", "there is no message of a user to answer");
  if (model->labels) return chat_with_label(services, call, model, last->content, style);
  if (model->tags) return chat_with_tags(services, call, model, last->content, style);
  QuestionRow row;
  row.question = last->content;
  for (auto message = messages.begin(); message != last.base() - 1; ++message) {
    if (message->role != "assistant") row.context += (row.context.empty() ? "" : "\n\n") + message->content;
  }
  return chat_with_span(services, call, model, std::move(row), style);
}

}  // namespace tailor
