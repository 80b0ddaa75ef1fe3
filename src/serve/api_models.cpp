// The list of models, tokens and templates of one, and the end of one that a job made.

#include <fmt/format.h>

#include "serve/api_handlers.h"
#include "serve/chat_request.h"
#include "serve/fine_tuning.h"

namespace tailor {
namespace {

ApiResult<std::shared_ptr<const TextBackend>> text_model(const ApiServices& services, const ApiCall& call,
                                                         FieldReader& in) {
  TAILOR_TRY(const ServedModelPtr model, named_model(services, call.principal, in));
  call.note(*model);
  if (!model->text) return ApiError::invalid("model", fmt::format("'{}' has no tokens to show", model->id));
  return model->text;
}

ApiResult<Json> tokenize(const ApiServices& services, ApiCall& call) {
  TAILOR_TRY(const Json body, parse_body(call.request.body));
  FieldReader in(body);
  TAILOR_TRY(const auto text, text_model(services, call, in));
  TokenList tokens;
  if (in.has("messages")) {
    const std::vector<ChatMessage> messages = read_messages(in, services.limits);
    if (in.error()) return *in.error();
    TAILOR_TRY(tokens, text->encoder().prompt(messages, nullptr));
  } else {
    const bool special = in.boolean("add_special", in.boolean("add_special_tokens", false));
    const bool parse = in.boolean("parse_special", true);
    const std::string content = in.has("content") ? in.text("content") : in.required_text("prompt");
    if (in.error()) return *in.error();
    tokens = text->tokenizer().encode(content, special, parse);
  }
  const bool pieces = in.boolean("with_pieces", false);
  if (in.error()) return *in.error();
  call.note_ignored(in);
  Json list = Json::array();
  for (const std::int32_t t : tokens) {
    if (pieces)
      list.push_back({{"id", t}, {"piece", text->tokenizer().decode({&t, 1}, true)}});
    else
      list.push_back(t);
  }
  return Json{{"tokens", std::move(list)}, {"count", tokens.size()}, {"max_model_len", text->max_context()}};
}

ApiResult<Json> detokenize(const ApiServices& services, ApiCall& call) {
  TAILOR_TRY(const Json body, parse_body(call.request.body));
  FieldReader in(body);
  TAILOR_TRY(const auto text, text_model(services, call, in));
  const Json* list = in.find("tokens");
  if (list == nullptr || !list->is_array())
    return ApiError::invalid("tokens", "'tokens': expected a list of token ids");
  const TokenList tokens = in.token_ids("tokens", *list, text->engine().vocabulary());
  if (in.error()) return *in.error();
  call.note_ignored(in);
  const std::string content = text->tokenizer().decode(tokens, true);
  return Json{{"content", content}, {"prompt", content}};
}

ApiResult<Json> apply_template(const ApiServices& services, ApiCall& call) {
  TAILOR_TRY(const Json body, parse_body(call.request.body));
  FieldReader in(body);
  TAILOR_TRY(const auto text, text_model(services, call, in));
  const std::vector<ChatMessage> messages = read_messages(in, services.limits);
  if (in.error()) return *in.error();
  call.note_ignored(in);
  TAILOR_TRY(const TokenList tokens, text->encoder().prompt(messages, nullptr));
  return Json{{"prompt", text->tokenizer().decode(tokens, true)}, {"count", tokens.size()}};
}

/// As vLLM has it; lm-evaluation-harness counts a context's tokens with it.
ApiResult<Json> tokenizer_info(const ApiServices& services, const ApiCall& call) {
  const Json asked{{"model", query_parameter(call.request.head.query, "model").value_or("")}};
  FieldReader in(asked);
  TAILOR_TRY(const auto text, text_model(services, call, in));
  const Tokenizer& tokenizer = text->tokenizer();
  const auto shown = [&](std::int32_t id) { return id < 0 ? Json(nullptr) : Json(tokenizer.decode({&id, 1}, true)); };
  Json out{{"bos_token", shown(tokenizer.bos())},
           {"eos_token", shown(tokenizer.eos())},
           {"pad_token", shown(tokenizer.pad())},
           {"unk_token", shown(tokenizer.unk())}};
  out["vocab_size"] = tokenizer.vocabulary_size();
  out["max_model_len"] = text->max_context();
  return out;
}

ApiError no_model(const std::string& id) {
  return {404, "invalid_request_error", "model_not_found",
          fmt::format("the model '{}' does not exist", id.substr(0, 128)), "model"};
}

/// Looked up among the jobs and not among what is served: its base model may be gone.
ApiResult<Json> delete_model(const ApiServices& services, const ApiCall& call) {
  const std::string& id = call.path.at("id");
  const Principal& who = call.principal;
  const Result<Job> job = services.tuning != nullptr ? services.tuning->jobs().find_by_model(id)
                                                     : Error{ErrorCode::kNotFound, "this server has no jobs", ""};
  if (!job.has_value()) {
    if (job.error().code != ErrorCode::kNotFound) return job.error();
    if (!services.models->find(id, viewer_of(who))) return no_model(id);
    return ApiError::invalid(
        "model",
        fmt::format("'{}' was made by no fine-tuning job of this server, which serves it because it "
                    "was told to: it is taken from where it was named, or unloaded with DELETE "
                    "/v1/admin/models/{{id}}",
                    id),
        "model_not_fine_tuned");
  }
  if (!viewer_of(who).sees_all && job->owner != who.key_id) {
    if (!job->owner.empty()) return no_model(id);
    return ApiError{403, "permission_error", "not_its_owner",
                    fmt::format("'{}' was made when there were no keys: those of scope admin may delete it", id),
                    "model"};
  }
  const Status removed = services.tuning->remove_model(*job, who.key_id.empty() ? "nobody" : who.key_id);
  if (!removed) return removed.error().code == ErrorCode::kNotFound ? no_model(id) : api_error(removed.error());
  return Json{{"id", id}, {"object", "model"}, {"deleted", true}};
}

}  // namespace

void handle_tokenize(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(tokenize(services, *call));
}
void handle_detokenize(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(detokenize(services, *call));
}
void handle_apply_template(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(apply_template(services, *call));
}

void handle_tokenizer_info(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(tokenizer_info(services, *call));
}

void handle_models(const ApiServices& services, const ApiCallPtr& call) {
  call->answer_written(*services.models->listing(viewer_of(call->principal)));
}

void handle_model(const ApiServices& services, const ApiCallPtr& call) {
  const std::string& id = call->path.at("id");
  if (const ServedModelPtr model = services.models->find(id, viewer_of(call->principal)); model && !id.empty())
    return call->answer(model->describe());
  call->answer(no_model(id));
}

void handle_delete_model(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(delete_model(services, *call));
}

}  // namespace tailor
