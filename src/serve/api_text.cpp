// Chat completions and completions.

#include <fmt/format.h>

#include <algorithm>

#include "serve/admission.h"
#include "serve/api_handlers.h"
#include "serve/chat_request.h"
#include "serve/generation_call.h"
#include "serve/response_format.h"

namespace tailor {
namespace {

constexpr int kUsualCompletion = 16;  // tokens, as OpenAI's

EngineRequest engine_request(const ApiServices& services, const ApiCall& call, const ServedModel& model,
                             const GenerationParams& params, int expected_answer) {
  EngineRequest out;
  out.sampling = params.sampling;
  out.choices = params.choices;
  out.adapter = model.text->adapter();
  out.client = call.principal.key_id;
  out.cache_space = call.principal.cache_salt + "\n" + params.cache_salt;
  out.invariant = params.invariant;
  out.repeatable = params.repeatable;
  out.priority = call.principal.priority + params.priority;
  out.expected_answer = expected_answer;
  out.deadline = call.arrived + services.limits.request_timeout;
  return out;
}

ApiError answers_no_text(const ServedModel& model) {
  return ApiError::invalid(
      "model", fmt::format("'{}' answers with no text; its capabilities are listed by /v1/models", model.id),
      "model_not_supported");
}

/// Who is sooner passes everybody's requests: for who administers.
void check_priority(FieldReader& in, const Principal& who, const GenerationParams& params) {
  if (params.priority <= 0 || who.key_id.empty() || who.administers) return;
  in.fail(ApiError{403, "permission_error", "not_an_administrator",
                   "'priority': below 0 needs a key that also has the scope admin; expected 0 to 100", "priority"});
}

/// What one answer may take at most; without a limit of the request a usual length, since few answers fill the context.
int answer_estimate(FieldReader& in, const GenerationParams& params, int max_context) {
  constexpr int kUsualAnswer = 512;
  const bool said = in.has("max_tokens") || in.has("max_completion_tokens");
  return std::min({params.sampling.max_tokens, max_context, said ? INT32_MAX : kUsualAnswer});
}

/// Before anything is tokenised: whether there is time and quota for the body's prompts and answers of so many tokens.
std::optional<ApiError> refuse(const ApiServices& services, const ApiCall& call, const TextBackend& text,
                               const GenerationParams& params, std::int64_t answer_tokens) {
  const Engine& engine = text.engine();
  const ExpectedWait wait = engine.expected_wait(call.principal.key_id, call.principal.priority + params.priority,
                                                 text.adapter(), params.invariant);
  const auto work = static_cast<double>(estimated_tokens(call.body_bytes) + answer_tokens);
  if (auto refused = refuse_late(services, call, wait, engine.queue_limits().waiting_time, work)) return refused;
  return call.reserve(answer_tokens);
}

/// What the answers must follow, and how errors name it.
struct AskedFormat {
  std::optional<ConstraintSpec> spec;  // none: nothing
  std::string param, code;
};

AskedFormat read_format(FieldReader& in) {
  AskedFormat out{.spec = read_constraint(in), .param = "response_format", .code = "unsupported_parameter"};
  if (out.spec && !out.spec->where.empty()) out.param = out.spec->where;
  return out;
}

/// A call that must come follows the schema of its tool's parameters.
AskedFormat forced_call(const TextBackend& model, const ToolRequest& tools) {
  ConstraintSpec spec;
  spec.kind = ConstraintSpec::Kind::kJsonSchema;
  spec.schema = call_schema(*model.tool_format(), tools);
  spec.where = "tools";
  return {.spec = std::move(spec), .param = "tools", .code = ""};
}

/// After refuse(): it may cost more than the answer.
ApiResult<ConstraintFactory> compile(const TextBackend& model, const AskedFormat& format, GenerationParams& params) {
  if (!format.spec) return ConstraintFactory{};
  params.sampling.ignore_end = false;  // where the text is complete nothing else may follow
  auto constraint = model.constraints().compile(*format.spec);
  if (constraint.has_value()) return constraint_factory(std::move(*constraint));
  ApiError error = api_error(constraint.error());
  error.message = to_string(constraint.error());  // it names no files, and may quote the schema's own paths
  error.param = format.param;
  error.code = format.code;
  return error;
}

/// A text, texts, token ids, or lists of token ids.
void read_prompts(FieldReader& in, const ApiLimits& limits, const TextBackend& model,
                  std::vector<GenerationCall::Prompt>& out) {
  const Json* prompt = in.find("prompt");
  if (prompt == nullptr) return in.fail("prompt", "is missing", "missing_required_parameter");
  const Tokenizer& tokenizer = model.tokenizer();
  const auto add_text = [&](const Json& item) {
    // The caller writes the whole prompt, control tokens included, as with other servers of this interface.
    const auto& text = item.get_ref<const std::string&>();
    out.push_back({tokenizer.encode(text, true, true), text});
  };
  const auto add_tokens = [&](const Json& list) {
    TokenList tokens = in.token_ids("prompt", list, model.engine().vocabulary());
    std::string text = tokenizer.decode(tokens, true);
    out.push_back({std::move(tokens), std::move(text)});
  };
  if (prompt->is_string()) return add_text(*prompt);
  if (!prompt->is_array() || prompt->empty())
    return in.fail("prompt", "expected a string, strings, token ids or lists of token ids");
  if (prompt->front().is_number()) return add_tokens(*prompt);
  if (prompt->size() > limits.prompts)
    return in.fail("prompt", fmt::format("expected at most {} prompts, got {}", limits.prompts, prompt->size()));
  for (const Json& item : *prompt) {
    if (item.is_string())
      add_text(item);
    else if (item.is_array() && !item.empty())
      add_tokens(item);
    else
      return in.fail("prompt", "expected a string, strings, token ids or lists of token ids");
  }
}

/// What a template does not show of earlier turns.
void ignore_reasoning(FieldReader& in) {
  const Json& messages = *in.find("messages");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].value("role", "") != "assistant") continue;
    for (const char* name : {"reasoning_content", "reasoning"}) {
      if (messages[i].contains(name)) in.ignore(fmt::format("messages[{}].{}", i, name));
    }
  }
}

std::string end_of(const TextBackend& text, std::span<const std::int32_t> prompt) {
  constexpr std::size_t kTokens = 16;
  return text.tokenizer().decode(prompt.last(std::min(kTokens, prompt.size())), true);
}

ApiFailure chat(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model, FieldReader& in) {
  const std::vector<ChatMessage> messages = read_messages(in, services.limits);
  if (in.error()) return in.error();
  if (model->is_package()) return answer_chat_by_package(services, call, model, messages, in);
  if (!model->text) return answers_no_text(*model);
  const TextBackend& text = *model->text;
  if (!text.encoder().can_chat())
    return ApiError::invalid(
        "model", fmt::format("'{}' goes on with texts and holds no conversation; use /v1/completions", model->id));
  GenerationParams params = read_generation_params(in, services.limits, text.engine().vocabulary(), text.max_context());
  check_priority(in, call->principal, params);
  const bool logprobs = in.boolean("logprobs", false);
  const auto top = static_cast<int>(in.integer("top_logprobs", 0, 0, services.limits.top_logprobs));
  if (top > 0 && !logprobs) in.fail("top_logprobs", "needs 'logprobs' to be true");
  if (params.sampling.max_tokens < 1) in.fail("max_tokens", "expected at least 1");
  if (logprobs) params.sampling.top_logprobs = top;
  AskedFormat format = read_format(in);
  const ToolRequest tools = read_tool_request(in);
  const bool calls = !tools.tools.is_null(), must_call = calls && !tools.forced.empty();
  if (calls && !text.tool_format())
    in.fail("tools", fmt::format("'{}' was not made to call tools: its chat template has no place for them", model->id),
            "unsupported_parameter");
  if (must_call && format.spec) in.fail("response_format", "cannot be combined with a tool_choice that forces a call");
  if (must_call && !in.error()) format = forced_call(text, tools);
  if (in.error()) return in.error();
  const bool thinks = text.encoder().chat_template()->abilities(calls).thoughts;
  if (!thinks) ignore_reasoning(in);
  call->note_ignored(in);
  const int answer = answer_estimate(in, params, text.max_context());
  if (auto refused = refuse(services, *call, text, params, std::int64_t{answer} * params.choices)) return refused;
  TAILOR_TRY(ConstraintFactory constraint, compile(text, format, params));
  Result<TokenList> prompt = text.encoder().prompt(messages, tools.tools);
  if (!prompt.has_value()) {
    ApiError error = api_error(prompt.error());
    error.param = "messages";
    return error;
  }
  const auto generation = std::make_shared<GenerationCall>(
      call, model,
      GenerationStyle{.chat = true,
                      .logprobs = logprobs,
                      .model = model->id,
                      .tools = calls ? text.tool_format() : std::nullopt,
                      .tool_names = tools.names(),
                      .forced_call = must_call,
                      .guard = services.guard,
                      .parallel_calls = tools.parallel,
                      .thoughts = thinks && !constraint,
                      .thoughts_begun = thinks && opens_thoughts(end_of(text, *prompt))},
      params, services.limits.stream_keep_alive);
  std::vector<GenerationCall::Prompt> prompts;
  if (must_call) {  // the call is begun for the model
    const TokenList open = text.tokenizer().encode(text.tool_format()->open, false, true);
    prompt->insert(prompt->end(), open.begin(), open.end());
  }
  prompts.push_back({std::move(*prompt), ""});
  EngineRequest shape = engine_request(services, *call, *model, params, answer);
  shape.constraint = std::move(constraint);
  generation->start(std::move(prompts), std::move(shape));
  return std::nullopt;
}

ApiFailure completion(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model,
                      FieldReader& in) {
  if (!model->text) return answers_no_text(*model);
  const TextBackend& text = *model->text;
  GenerationParams params = read_generation_params(in, services.limits, text.engine().vocabulary(), kUsualCompletion);
  check_priority(in, call->principal, params);
  const bool echo = in.boolean("echo", false);
  const auto logprobs = static_cast<int>(in.integer("logprobs", -1, 0, services.limits.top_logprobs));
  const auto best_of = in.integer("best_of", params.choices, 1, services.limits.choices);
  if (best_of != params.choices)
    in.fail("best_of", "other values than that of 'n' are not supported", "unsupported_parameter");
  if (!in.text("suffix").empty())
    in.fail("suffix", "is not supported: the model writes forwards", "unsupported_parameter");
  if (params.sampling.max_tokens == 0 && !echo)
    in.fail("max_tokens", "0 needs 'echo' to be true: there would be no answer");
  const AskedFormat format = read_format(in);
  std::vector<GenerationCall::Prompt> prompts;
  const int answer = answer_estimate(in, params, text.max_context());
  if (!in.error()) {
    const Json* given = in.find("prompt");
    const bool several = given != nullptr && given->is_array() && !given->empty() && !given->front().is_number();
    const auto count = static_cast<std::int64_t>(several ? given->size() : 1);
    if (auto refused = refuse(services, *call, text, params, count * answer * params.choices))
      in.fail(std::move(*refused));
  }
  if (!in.error()) read_prompts(in, services.limits, text, prompts);
  if (!in.error() && prompts.size() * static_cast<std::size_t>(params.choices) > services.limits.prompts)
    in.fail("prompt", fmt::format("prompts times 'n' may be at most {}", services.limits.prompts));
  if (in.error()) return in.error();
  TAILOR_TRY(ConstraintFactory constraint, compile(text, format, params));
  call->note_ignored(in);
  if (logprobs >= 0) params.sampling.top_logprobs = logprobs;
  EngineRequest shape = engine_request(services, *call, *model, params, answer);
  shape.only_prompt = params.sampling.max_tokens == 0;
  shape.constraint = std::move(constraint);
  if (echo && logprobs >= 0) shape.prompt_logprobs = logprobs;
  const auto generation = std::make_shared<GenerationCall>(
      call, model,
      GenerationStyle{
          .chat = false, .logprobs = logprobs >= 0, .echo = echo, .model = model->id, .guard = services.guard},
      params, services.limits.stream_keep_alive);
  generation->start(std::move(prompts), std::move(shape));
  return std::nullopt;
}

}  // namespace

void handle_chat_completions(const ApiServices& services, const ApiCallPtr& call) {
  answer_by_model(services, call, chat);
}

void handle_completions(const ApiServices& services, const ApiCallPtr& call) {
  answer_by_model(services, call, completion);
}

}  // namespace tailor
