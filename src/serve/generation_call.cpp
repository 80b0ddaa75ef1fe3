#include "serve/generation_call.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "serve/admission.h"
#include "serve/key_visit.h"
#include "store/random_id.h"
#include "text/unicode.h"

namespace tailor {
namespace {

double since(SteadyTime begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// JSON has no infinity; what a probability of nothing is told as.
Json number(float logprob) {
  return std::isfinite(logprob) ? Json(logprob) : Json(-9999.0);
}

/// As OpenAI spells a token that is only a part of a character: two of them are not one name.
std::string token_name(const std::string& bytes) {
  if (find_invalid_utf8(bytes) == std::string::npos) return bytes;
  std::string out = "bytes:";
  for (const char c : bytes) fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(c));
  return out;
}

}  // namespace

/// The engine numbers the choices of one prompt; the client those of all.
class GenerationCall::Part final : public AnswerListener {
 public:
  Part(std::shared_ptr<GenerationCall> call, std::size_t first) : call_(std::move(call)), first_(first) {}
  void on_prompt(int choice, const PromptRead& read) override { call_->on_prompt(at(choice), read); }
  void on_text(int choice, std::string_view text, std::span<const SampledToken> tokens) override {
    call_->on_text(at(choice), text, tokens);
  }
  void on_end(int choice, const AnswerEnd& end) override { call_->on_end(at(choice), end); }
  void on_error(int choice, const Error& error) override { call_->on_error(at(choice), error); }

 private:
  std::size_t at(int choice) const { return first_ + static_cast<std::size_t>(choice); }
  std::shared_ptr<GenerationCall> call_;
  std::size_t first_;
};

GenerationCall::GenerationCall(ApiCallPtr call, ServedModelPtr model, GenerationStyle style, GenerationParams params,
                               std::chrono::milliseconds keep_alive)
    : call_(std::move(call)),
      model_(std::move(model)),
      style_(std::move(style)),
      params_(std::move(params)),
      keep_alive_(keep_alive),
      id_(random_id(style_.chat ? "chatcmpl-" : "cmpl-", 24)),
      created_(unix_seconds()) {
  if (!call_->record || call_->record->batch_id.empty()) live_.emplace(model_->text->host()->live);
}

void GenerationCall::open_filters() {
  if (style_.guard == nullptr) return;
  bool any = false;
  for (Choice& choice : choices_) any = (choice.filter = style_.guard->filter(*call_, *model_)) != nullptr || any;
  if (any && std::exchange(style_.logprobs, false)) call_->ignored.emplace_back("logprobs");
}

/// What the guard lets pass of it.
std::string GenerationCall::passed(Choice& choice, std::string_view text) {
  if (!choice.filter) return std::string(text);
  if (choice.cut) return {};
  AnswerFilter::Passed out = choice.filter->pass(text);
  choice.cut = out.ends;
  return std::move(out.text);
}

/// Thoughts, and content in which tools may be called.
ReasoningReader::Told GenerationCall::parted(Choice& choice, std::string text, bool at_end) {
  ReasoningReader::Told out;
  if (choice.thoughts) {
    out = choice.thoughts->add(text);
    if (at_end) {
      ReasoningReader::Told rest = choice.thoughts->finish();
      out.reasoning += rest.reasoning;
      out.content += rest.content;
    }
  } else {
    out.content = std::move(text);
  }
  if (choice.tools) out.content = choice.tools->add(out.content) + (at_end ? choice.tools->finish() : "");
  choice.reasoning += out.reasoning;
  choice.text += out.content;
  return out;
}

Json GenerationCall::delta_of(const ReasoningReader::Told& told) {
  Json out = Json::object();
  if (!told.reasoning.empty()) out["reasoning_content"] = out["reasoning"] = told.reasoning;
  if (!told.content.empty() || told.reasoning.empty()) out["content"] = told.content;
  return out;
}

void GenerationCall::start(std::vector<Prompt> prompts, EngineRequest shape) {
  const auto n = static_cast<std::size_t>(params_.choices);
  only_prompt_ = shape.only_prompt;
  {
    const std::lock_guard lock(mutex_);
    prompts_ = std::move(prompts);
    choices_.resize(prompts_.size() * n);
    open_filters();
    for (Choice& choice : choices_) {
      if (style_.thoughts) choice.thoughts.emplace(style_.thoughts_begun);
      if (!style_.tools) continue;
      choice.tools.emplace(*style_.tools, style_.parallel_calls, style_.tool_names);
      if (style_.forced_call) choice.tools->add(style_.tools->open);
    }
    left_ = choices_.size();
    submitted_s_ = since(call_->arrived);
  }
  call_->responder->on_disconnect([weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      const std::lock_guard lock(self->mutex_);
      self->gone_ = true;
      self->cancel_all();
    }
  });
  if (params_.stream && keep_alive_.count() > 0) {  // while it waits, or its prompt is long
    call_->responder->on_silence(keep_alive_, [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      const std::lock_guard lock(self->mutex_);
      if (!self->over_) self->begin_stream();
    });
  }
  if (call_->principal.visit) {
    call_->principal.visit->on_revoked([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      const std::lock_guard lock(self->mutex_);
      self->fail({401, "authentication_error", "invalid_api_key", "the API key was revoked or has expired", ""});
    });
  }
  for (std::size_t i = 0; i < prompts_.size(); ++i) {
    EngineRequest request = shape;
    request.prompt = prompts_[i].tokens;
    auto ticket = model_->text->engine().submit(std::move(request), std::make_shared<Part>(shared_from_this(), i * n));
    const bool full = !ticket.has_value() && ticket.error().code == ErrorCode::kUnavailable;
    ExpectedWait wait;
    if (full) wait = model_->text->engine().expected_wait(shape.client, shape.priority, shape.adapter, shape.invariant);
    const std::lock_guard lock(mutex_);
    if (ticket.has_value()) {
      tickets_.push_back(*ticket);
      if (gone_ || over_) cancel_all();
      continue;
    }
    left_ -= (prompts_.size() - i) * n;
    ApiError error = engine_error(ticket.error(), wait);
    if (full && call_->record) call_->record->refused_for = WaitRefusal::kQueue;
    if (error.status == 400) {
      error.param = style_.chat ? "messages" : "prompt";
      if (error.message.find("the model reads") != std::string::npos) error.code = "context_length_exceeded";
    }
    fail(error);
    return;
  }
}

void GenerationCall::cancel_all() {
  for (const auto& ticket : tickets_) ticket->cancel();
}

Json GenerationCall::event(Json choice) const {
  const char* object = !style_.chat ? "text_completion" : params_.stream ? "chat.completion.chunk" : "chat.completion";
  Json out{{"id", id_},
           {"object", object},
           {"created", created_},
           {"model", style_.model},
           {"system_fingerprint", model_->fingerprint},
           {"choices", Json::array()}};
  if (choice.is_null()) return out;
  out["choices"].push_back(std::move(choice));
  if (params_.stream && params_.continuous_usage) out["usage"] = usage();
  return out;
}

void GenerationCall::send_event(const Json& json) {
  if (gone_) return;
  if (call_->responder->write("data: " + dump_json(json) + "\n\n")) return;
  gone_ = true;
  cancel_all();
}

void GenerationCall::begin_stream() {
  if (streaming_) return;
  streaming_ = true;
  HttpHeaders headers = call_->headers("text/event-stream");
  headers.add("X-Accel-Buffering", "no");
  call_->responder->begin_stream(200, std::move(headers));
  call_->responder->set_keep_alive_comment(keep_alive_);
}

void GenerationCall::on_prompt(std::size_t index, const PromptRead& read) {
  const std::lock_guard lock(mutex_);
  choices_[index].prompt = read;
  choices_[index].first_token = choices_[index].last_token = std::chrono::steady_clock::now();
  if (first_token_s_ < 0) first_token_s_ = since(call_->arrived);
  if (!params_.stream || over_) return;
  begin_stream();
  choices_[index].begun = true;
  if (style_.chat) {
    Json choice{{"index", index},
                {"delta", {{"role", "assistant"}, {"content", ""}}},
                {"logprobs", nullptr},
                {"finish_reason", nullptr}};
    send_event(event(std::move(choice)));
  } else if (style_.echo) {
    Json choice{{"index", index}, {"text", prompts_[index / static_cast<std::size_t>(params_.choices)].text}};
    choice["logprobs"] = style_.logprobs ? completion_logprobs(index, {}, true, choices_[index].places) : Json(nullptr);
    choice["finish_reason"] = nullptr;
    send_event(event(std::move(choice)));
  }
}

void GenerationCall::on_text(std::size_t index, std::string_view text, std::span<const SampledToken> tokens) {
  const std::lock_guard lock(mutex_);
  const Choice& choice = choices_[index];
  if (over_ || !choice.reason.empty()) return;  // its figures were told already
  take_text(index, text, tokens);
  if (choice.cut || (choice.tools && choice.tools->at_end())) end_choice(index, "stop");
}

void GenerationCall::take_text(std::size_t index, std::string_view text, std::span<const SampledToken> tokens) {
  Choice& choice = choices_[index];
  const ReasoningReader::Told told = parted(choice, passed(choice, text), false);
  if (const auto now = std::chrono::steady_clock::now(); !tokens.empty()) {
    // The first token comes with the prompt's end: its time is the prompt's.
    if (choice.answer_tokens > 0)
      token_seconds_.observe(
          std::chrono::duration<double>(now - choice.last_token).count() / static_cast<double>(tokens.size()),
          tokens.size());
    choice.last_token = now;
  }
  choice.answer_tokens += tokens.size();
  std::vector<SampledToken> shown;
  for (const SampledToken& token : tokens) {
    if (!model_->text->tokenizer().ends_generation(token.token)) shown.push_back(token);
  }
  if (style_.logprobs) choice.tokens.insert(choice.tokens.end(), shown.begin(), shown.end());
  const bool silent = told.content.empty() && told.reasoning.empty() && (!style_.logprobs || shown.empty());
  if (!params_.stream || silent) return;
  Json out{{"index", index}};
  if (style_.chat)
    out["delta"] = delta_of(told);
  else
    out["text"] = told.content;
  out["logprobs"] = !style_.logprobs ? Json(nullptr)
                    : style_.chat    ? chat_logprobs(shown)
                                     : completion_logprobs(index, shown, false, choice.places);
  out["finish_reason"] = nullptr;
  send_event(event(std::move(out)));
}

void GenerationCall::on_end(std::size_t index, const AnswerEnd& end) {
  const std::lock_guard lock(mutex_);
  Choice& choice = choices_[index];
  if (!choice.reason.empty()) return;
  choice.stop_text = end.stop_text;
  choice.stop_token = end.stop_token;
  end_choice(index, end.reason == FinishReason::kStop && !only_prompt_ ? "stop" : "length");
}

void GenerationCall::end_choice(std::size_t index, std::string reason) {
  Choice& choice = choices_[index];
  choice.reason = std::move(reason);
  std::string rest;
  if (choice.filter && !choice.cut) {
    AnswerFilter::Passed last = choice.filter->finish();
    choice.cut = last.ends;
    rest = std::move(last.text);
  }
  if (choice.cut) {
    choice.reason = "content_filter";
    choice.stop_text.clear();
    choice.stop_token = -1;
  }
  const ReasoningReader::Told last = parted(choice, std::move(rest), true);
  if (choice.tools && !choice.tools->calls().empty() && choice.reason == "stop") choice.reason = "tool_calls";
  --left_;
  if (over_) return;
  if (params_.stream) {
    const auto delta = [&](Json content) {
      send_event(
          event({{"index", index}, {"delta", std::move(content)}, {"logprobs", nullptr}, {"finish_reason", nullptr}}));
    };
    if (style_.chat && !(last.content.empty() && last.reasoning.empty())) delta(delta_of(last));
    if (choice.tools && !choice.tools->calls().empty()) delta({{"tool_calls", tool_calls_of(choice, true)}});
    Json out{{"index", index}};
    if (style_.chat)
      out["delta"] = Json::object();
    else
      out["text"] = last.content;
    out["logprobs"] = nullptr;
    out["finish_reason"] = choice.reason;
    if (Json stopped = stop_reason(choice); !stopped.is_null()) out["stop_reason"] = std::move(stopped);
    send_event(event(std::move(out)));
  }
  if (left_ == 0) finish_all();
}

void GenerationCall::on_error(std::size_t index, const Error& error) {
  const std::lock_guard lock(mutex_);
  if (!choices_[index].reason.empty()) return;
  --left_;
  fail(api_error(error));
}

void GenerationCall::fail(const ApiError& error) {
  if (over_) return;
  over_ = true;
  cancel_all();
  settle();
  report(gone_ ? kClientGone : error.status);
  if (streaming_) {
    call_->log_cause(error);
    if (!gone_) call_->responder->write("data: " + error_json(error) + "\n\n");
    call_->responder->finish();
  } else {
    call_->answer(error);
  }
}

Json GenerationCall::usage() const {
  std::size_t prompt = 0, cached = 0, answer = 0;
  const auto n = static_cast<std::size_t>(params_.choices);
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    if (i % n == 0) {  // a prompt counts once, however many answers it has
      prompt += prompts_[i / n].tokens.size();
      cached += choices_[i].prompt.cached;
    }
    answer += choices_[i].answer_tokens;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", answer},
          {"total_tokens", prompt + answer},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

Json GenerationCall::chat_logprobs(std::span<const SampledToken> tokens) const {
  const Tokenizer& tokenizer = model_->text->tokenizer();
  const auto shown = [&](std::int32_t token, float logprob) {
    const std::string bytes = tokenizer.decode({&token, 1}, true);
    Json list = Json::array();
    for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
    return Json{{"token", token_name(bytes)}, {"logprob", number(logprob)}, {"bytes", std::move(list)}};
  };
  Json content = Json::array();
  for (const SampledToken& token : tokens) {
    Json item = shown(token.token, token.logprob);
    item["top_logprobs"] = Json::array();
    for (const TokenLogprob& top : token.top) item["top_logprobs"].push_back(shown(top.token, top.logprob));
    content.push_back(std::move(item));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

/// As vLLM has it: null where the model came to its own end.
Json GenerationCall::stop_reason(const Choice& choice) const {
  if (!choice.stop_text.empty()) return choice.stop_text;
  const std::vector<std::int32_t>& asked = params_.sampling.stop_tokens;
  if (std::find(asked.begin(), asked.end(), choice.stop_token) == asked.end()) return nullptr;
  const bool own_end = !params_.sampling.ignore_end && model_->text->tokenizer().ends_generation(choice.stop_token);
  return own_end ? Json(nullptr) : Json(choice.stop_token);
}

Json GenerationCall::completion_logprobs(std::size_t index, std::span<const SampledToken> tokens, bool with_prompt,
                                         TokenPlaces& places) const {
  const Tokenizer& tokenizer = model_->text->tokenizer();
  const auto spelt = [&](std::int32_t token) { return tokenizer.decode({&token, 1}, true); };
  Json names = Json::array(), logprobs = Json::array(), tops = Json::array(), offsets = Json::array();
  const std::string& text = prompts_[index / static_cast<std::size_t>(params_.choices)].text;
  const auto add = [&](std::int32_t token, const SampledToken* known, bool of_prompt) {
    const std::string bytes = spelt(token), name = token_name(bytes);
    names.push_back(name);
    offsets.push_back(of_prompt ? places.next_of(text, bytes) : places.next(bytes));
    logprobs.push_back(known == nullptr ? Json(nullptr) : number(known->logprob));
    if (known == nullptr) {
      tops.push_back(nullptr);
      return;
    }
    Json top = Json::object();
    for (const TokenLogprob& t : known->top) {
      std::string key = token_name(spelt(t.token));
      if (!top.contains(key)) top[std::move(key)] = number(t.logprob);
    }
    // The token itself is always among them, as in OpenAI's own.
    if (!top.contains(name)) top[name] = number(known->logprob);
    tops.push_back(std::move(top));
  };
  if (with_prompt) {
    const TokenList& prompt = prompts_[index / static_cast<std::size_t>(params_.choices)].tokens;
    const std::vector<SampledToken>& known = choices_[index].prompt.logprobs;
    for (std::size_t i = 0; i < prompt.size(); ++i)
      add(prompt[i], i > 0 && i <= known.size() ? &known[i - 1] : nullptr, true);
    places.end_of(text);
  }
  for (const SampledToken& token : tokens) add(token.token, &token, false);
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

Json GenerationCall::tool_calls_of(const Choice& choice, bool numbered) const {
  Json out = Json::array();
  for (const ToolCall& call : choice.tools->calls()) {
    Json item = Json::object();
    if (numbered) item["index"] = out.size();
    item["id"] = call.id;
    item["type"] = "function";
    item["function"] = {{"name", call.name}, {"arguments", call.arguments}};
    out.push_back(std::move(item));
  }
  return out;
}

Json GenerationCall::shown_choice(std::size_t index) const {
  const Choice& choice = choices_[index];
  Json out{{"index", index}};
  if (style_.chat) {
    out["message"] = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
    if (!choice.reasoning.empty()) out["message"]["reasoning_content"] = out["message"]["reasoning"] = choice.reasoning;
    if (choice.tools && !choice.tools->calls().empty()) {
      if (choice.text.find_first_not_of(" \t\r\n") == std::string::npos) out["message"]["content"] = nullptr;
      out["message"]["tool_calls"] = tool_calls_of(choice, false);
    }
    out["logprobs"] = style_.logprobs ? chat_logprobs(choice.tokens) : Json(nullptr);
  } else {
    out["text"] = (style_.echo ? prompts_[index / static_cast<std::size_t>(params_.choices)].text : "") + choice.text;
    TokenPlaces places;
    out["logprobs"] = style_.logprobs ? completion_logprobs(index, choice.tokens, style_.echo, places) : Json(nullptr);
  }
  out["finish_reason"] = choice.reason;
  if (Json stopped = stop_reason(choice); !stopped.is_null()) out["stop_reason"] = std::move(stopped);
  return out;
}

/// Prompts that were never begun cost nothing; where none was, the request is told by its status alone.
void GenerationCall::settle() const {
  std::size_t tokens = 0;
  const auto n = static_cast<std::size_t>(params_.choices);
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    if (i % n == 0) tokens += choices_[i].prompt.tokens;
    tokens += choices_[i].answer_tokens;
  }
  if (tokens > 0) call_->settle(static_cast<std::int64_t>(tokens));
}

void GenerationCall::finish_all() {
  over_ = true;
  cancel_all();  // what was cut goes no further
  settle();
  if (params_.stream) {
    begin_stream();
    if (params_.include_usage) {
      Json last = event(nullptr);
      last["usage"] = usage();
      send_event(last);
    }
    if (!gone_) call_->responder->write("data: [DONE]\n\n");
    report(gone_ ? kClientGone : 200);
    call_->responder->finish();
  } else {
    Json out = event(nullptr);
    for (std::size_t i = 0; i < choices_.size(); ++i) out["choices"].push_back(shown_choice(i));
    out["usage"] = usage();
    report(gone_ ? kClientGone : 200);
    call_->answer(out);
  }
}

/// Before the answer's end is sent: who reads it finds it counted.
void GenerationCall::report(int status) {
  const auto told = std::make_shared<GenerationReport>();
  GenerationReport& out = *told;
  out.status = status;
  const auto n = static_cast<std::size_t>(params_.choices);
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    if (i % n == 0 && i / n < prompts_.size()) {
      out.prompt_tokens += prompts_[i / n].tokens.size();
      out.cached_tokens += choice.prompt.cached;
    }
    out.answer_tokens += choice.answer_tokens;
    out.longest_answer = std::max(out.longest_answer, choice.answer_tokens);
    out.queued_s = std::max(out.queued_s, choice.prompt.queued_s);
    out.prefill_s = std::max(out.prefill_s, choice.prompt.computed_s);
    out.decode_s =
        std::max(out.decode_s, std::chrono::duration<double>(choice.last_token - choice.first_token).count());
    out.finish_reasons.push_back(choice.reason);
  }
  out.submitted_s = submitted_s_;
  out.first_token_s = first_token_s_;
  out.total_s = since(call_->arrived);
  out.token_seconds = std::move(token_seconds_);
  out.response_id = id_;
  out.chat = style_.chat;
  out.stream = params_.stream;
  out.seeded = params_.repeatable;
  out.choices = params_.choices;
  out.max_tokens = params_.sampling.max_tokens;
  out.temperature = params_.sampling.temperature;
  out.top_p = params_.sampling.top_p;
  out.seed = params_.sampling.seed;
  out.stop = params_.sampling.stop;
  if (call_->record) call_->record->generation = told;
}

}  // namespace tailor
