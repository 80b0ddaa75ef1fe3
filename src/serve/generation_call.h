#pragma once
/// One request for text between the engine and its client: the answers of all its prompts and choices, told whole or as
/// an event stream, as chat completion or completion.

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "serve/generation_params.h"
#include "serve/guard.h"
#include "serve/metric_histogram.h"
#include "serve/reasoning.h"
#include "serve/token_places.h"

namespace tailor {

struct GenerationStyle {
  bool chat = true;  // else a completion
  bool logprobs = false;
  bool echo = false;                // completion: the prompt comes first
  std::string model;                // as answers name it
  std::optional<ToolFormat> tools;  // calls are looked for in the answer
  std::vector<std::string> tool_names = {};
  bool forced_call = false;     // the prompt ends with what opens a call
  Guard* guard = nullptr;       // null: the answers are told as they are written
  bool parallel_calls = true;   // else an answer ends with its first call
  bool thoughts = false;        // may come first in the answer
  bool thoughts_begun = false;  // the prompt ends with what opens them
};

/// What became of a request, for metrics and logs.
struct GenerationReport {
  std::size_t prompt_tokens = 0, cached_tokens = 0, answer_tokens = 0;
  double queued_s = 0, first_token_s = 0, total_s = 0;
  int status = 200;                         // 499: the client went
  std::vector<std::string> finish_reasons;  // of each choice; empty: it did not come to its end

  double submitted_s = 0;                     // from its coming to the engine's queue
  double prefill_s = 0, decode_s = 0;         // of the slowest choice; decode: from the first token to the last
  std::size_t longest_answer = 0;             // tokens
  BucketCounts token_seconds{kTokenSeconds};  // between tokens of one choice
  std::string response_id;
  bool chat = true, stream = false, seeded = false;
  int choices = 1, max_tokens = 0;
  double temperature = 0, top_p = 1;
  std::uint64_t seed = 0;
  std::vector<std::string> stop;  // texts that the request named
};

/// Threads: start() once; the rest is the engine's and the connection's.
class GenerationCall : public std::enable_shared_from_this<GenerationCall> {
 public:
  GenerationCall(ApiCallPtr call, ServedModelPtr model, GenerationStyle style, GenerationParams params,
                 std::chrono::milliseconds keep_alive);

  struct Prompt {
    TokenList tokens;
    std::string text;  // of an echo
  };
  /// Submits each prompt with all its choices. What the engine refuses is answered here.
  void start(std::vector<Prompt> prompts, EngineRequest shape);

 private:
  struct Choice {
    std::string text;
    std::vector<SampledToken> tokens;
    std::unique_ptr<AnswerFilter> filter;  // null: all passes
    bool cut = false;                      // by it: the rest is not told
    std::optional<ReasoningReader> thoughts;
    std::string reasoning;
    std::optional<ToolCallReader> tools;
    std::string reason;  // empty: not at its end; what the engine tells after it is left out
    TokenPlaces places;  // of a stream's log-probabilities
    std::string stop_text;
    std::int32_t stop_token = -1;
    std::size_t answer_tokens = 0;
    bool begun = false;
    PromptRead prompt;
    SteadyTime first_token, last_token;
  };
  class Part;

  void open_filters();

  // Under mutex_:
  static std::string passed(Choice& choice, std::string_view text);
  static ReasoningReader::Told parted(Choice& choice, std::string text, bool at_end);
  static Json delta_of(const ReasoningReader::Told& told);
  void begin_stream();
  void send_event(const Json& event);
  Json tool_calls_of(const Choice& choice, bool numbered) const;
  Json event(Json choice) const;
  Json shown_choice(std::size_t index) const;
  Json chat_logprobs(std::span<const SampledToken> tokens) const;
  Json completion_logprobs(std::size_t index, std::span<const SampledToken> tokens, bool with_prompt,
                           TokenPlaces& places) const;
  Json stop_reason(const Choice& choice) const;
  Json usage() const;
  void fail(const ApiError& error);
  void take_text(std::size_t index, std::string_view text, std::span<const SampledToken> tokens);
  void end_choice(std::size_t index, std::string reason);
  void finish_all();
  void report(int status);
  void settle() const;
  void cancel_all();

  void on_prompt(std::size_t index, const PromptRead& read);
  void on_text(std::size_t index, std::string_view text, std::span<const SampledToken> tokens);
  void on_end(std::size_t index, const AnswerEnd& end);
  void on_error(std::size_t index, const Error& error);

  ApiCallPtr call_;
  ServedModelPtr model_;
  std::optional<LiveRequest> live_;
  GenerationStyle style_;
  GenerationParams params_;
  std::chrono::milliseconds keep_alive_;
  std::string id_;
  std::int64_t created_ = 0;
  std::vector<Prompt> prompts_;

  std::mutex mutex_;
  std::vector<Choice> choices_;
  std::vector<std::shared_ptr<EngineTicket>> tickets_;
  std::size_t left_ = 0;
  bool streaming_ = false, over_ = false, gone_ = false, only_prompt_ = false;
  double first_token_s_ = -1, submitted_s_ = 0;
  BucketCounts token_seconds_{kTokenSeconds};
};

}  // namespace tailor
