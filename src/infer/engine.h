#pragma once
/// The engine under serving: many requests to one decoder at a time.
///
/// Continuous batching (Yu et al., Orca, OSDI 2022): requests join and leave between two steps; long prompts are
/// computed in chunks beside the answers of others (Agrawal et al., Sarathi, arXiv:2308.16369). What prompts have in
/// common is computed once and kept (a tree of shared beginnings, as in Zheng et al., SGLang, arXiv:2312.07104).
///
/// Lanes. A llama.cpp context computes one adapter at a time and attends over all of its cells, so requests are spread
/// over a few contexts ("lanes"), each with an adapter and sequences of its own. Lanes run side by side, each on its
/// share of the cores (infer/compute_share.h); beginnings move between them as bytes.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/cancel.h"
#include "core/result.h"
#include "infer/alarm.h"
#include "infer/cache_budget.h"
#include "infer/compute_share.h"
#include "infer/request_queue.h"
#include "infer/sampling.h"
#include "infer/torch_worker.h"
#include "model/tokenizer.h"

namespace tailor {

struct EngineOptions {
  int threads = 0;      // of all lanes together; 0: all cores
  int lanes = 0;        // at most; 0: by the model's size and the cores. More lanes: other memory, fewer barriers
  int max_context = 0;  // tokens of prompt and answer; 0: as the model was trained
  std::uint64_t cache_bytes = 0;          // keys and values of all lanes; 0: a quarter of the memory
  std::shared_ptr<CacheBudget> cache;     // shared with other engines, in the place of cache_bytes; null: not
  std::uint64_t cache_room = UINT64_MAX;  // of the machine, as CacheBudget::join() wants it
  std::uint64_t kept_bytes = std::uint64_t{256} << 20;  // of beginnings kept outside of lanes
  int lane_sequences = 32;                              // answers a lane computes at once; 1 to 96
  int chunk_tokens = 128;                               // of prompts in a step that also writes answers
  std::chrono::milliseconds adapter_wait{1000};  // an adapter without a lane waits no longer than for this and the
                                                 // end of the answers of one lane
  QueueLimits queue;
  /// An answer begins when there is room for all of it, and is never put back and begun again; cache_bytes is raised to
  /// what one text of max_context takes. For callers that want all answers rather than each soon.
  bool whole_answers = false;
  bool f32_cache = false;
  bool flash_attention = true;          // with 16-bit keys and values: of infer/attention.h
  std::shared_ptr<ComputeShare> share;  // null: one of its own
  TorchWorkerFiles
      worker;  // where it names bottlenecks, tailor-tune computes instead of llama.cpp: one answer at a time
};

enum class FinishReason : std::uint8_t { kStop, kLength };  // the model's end or a stop text; max_tokens or context

/// 0: the model itself.
using AdapterId = std::int64_t;

struct EngineRequest {
  TokenList prompt;  // at least one token
  SamplingOptions sampling;
  int choices = 1;  // answers to the prompt, each with random numbers of its own
  AdapterId adapter = 0;
  std::string client;        // whom it is accounted to
  std::string cache_space;   // beginnings are shared with requests of the same space only
  bool use_cache = true;     // take and leave shared beginnings
  bool only_prompt = false;  // no answer; with prompt_logprobs
  int prompt_logprobs = -1;  // >= 0: log p of every token of the prompt after the first, and of so many likeliest ones
  std::size_t logprobs_from = 1;  // of these, the first whose log p is told; what comes before it may be cached
  bool invariant = false;         // the same tokens alone and in company; computed alone, so slower
  bool repeatable = false;  // asked again of an idle engine, the same tokens: then computed alone, without the cache
  int priority = 0;
  int expected_answer = 0;  // tokens that an answer may well have, to account for what waits; 0: as many as it may have
  std::optional<SteadyTime> deadline;  // ends with kCancelled: within one step, or at once while it waits for its turn
  /// Makes what each answer must follow; empty: nothing.
  std::function<Result<std::unique_ptr<TokenConstraint>>()> constraint;
};

struct PromptRead {
  std::size_t tokens = 0, cached = 0;  // of the prompt; of these, not computed
  double queued_s = 0, computed_s = 0;
  std::vector<SampledToken> logprobs;  // where asked for: of tokens logprobs_from, logprobs_from + 1, …
};

struct AnswerEnd {
  FinishReason reason = FinishReason::kLength;
  std::string stop_text;         // that ended it; empty: another reason
  std::int32_t stop_token = -1;  // that ended it
  std::size_t tokens = 0;        // computed, the end included
  double seconds = 0;            // from the first token to the last
};

/// Called from the engine's threads, for one choice one after the other; must not block and must not call the engine
/// but for EngineTicket::cancel().
class AnswerListener {
 public:
  virtual ~AnswerListener() = default;
  virtual void on_prompt(int choice, const PromptRead& read) = 0;
  /// Whole characters, perhaps none, and the tokens behind them (their text may come later).
  virtual void on_text(int choice, std::string_view text, std::span<const SampledToken> tokens) = 0;
  virtual void on_end(int choice, const AnswerEnd& end) = 0;
  /// Instead of on_end(): cancelled, timed out, or a failure.
  virtual void on_error(int choice, const Error& error) = 0;
};

class EngineTicket {
 public:
  /// `watch`: what the engine's watch of requests sleeps on; it may outlive the engine.
  explicit EngineTicket(std::shared_ptr<Alarm> watch) : watch_(std::move(watch)) {}
  /// The answers end within one step with kCancelled; those that wait for their turn or for a step of others, at once.
  /// Any thread, any number of times, after the engine's end too; waits neither for a step nor for the engine's lock.
  void cancel();
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::shared_ptr<Alarm> watch_;
  std::atomic<bool> cancelled_{false};
};

/// Of a request that comes now.
struct ExpectedWait {
  double seconds = 0;            // before it begins; 0: there is room, or nobody knows
  double own_seconds = 0;        // of these, for what its own client has waiting
  double tokens_per_second = 0;  // as what waits is worked off; 0: nobody knows
};

/// Upper bounds of the tokens of a step, vLLM's: rising.
inline constexpr std::array kStepTokens{1., 8., 16., 32., 64., 128., 256., 512., 1024., 2048., 4096., 8192., 16384.};

struct EngineStats {
  int lanes = 0;
  double drain_tokens_per_second = 0;       // of what waits, while something did; 0: nobody knows
  double waiting_seconds = 0;               // what waits takes; 0: there is room, or nobody knows
  int running = 0, waiting = 0;             // answers
  std::uint64_t waiting_tokens = 0;         // estimated
  std::uint64_t cells_used = 0, cells = 0;  // of keys and values; as many as the budget allows
  std::uint64_t cache_bytes = 0;            // that keys and values take now; it grows by doubling, up to the budget
  std::uint64_t prompt_tokens = 0;          // of requests that began
  std::uint64_t cached_tokens = 0;          // of these, not computed
  std::uint64_t computed_tokens = 0;        // of prompts and answers
  std::uint64_t answer_tokens = 0;
  std::uint64_t steps = 0, preempted = 0, finished = 0, failed = 0;
  std::array<std::uint64_t, kStepTokens.size() + 1> computing_steps{};  // of these, by the tokens that they computed
  std::uint64_t kept_bytes = 0;
  std::optional<SteadyTime> computing_since;  // heartbeat: since when the lane that has had work the longest without a
                                              // step's end has had it; none: no lane has work
  std::vector<AdapterId> running_adapters, waiting_adapters;
};

/// Threads: all calls from any thread.
class Engine {
 public:
  struct Impl;  // engine_impl.h

  static Result<Engine> load(const std::filesystem::path& gguf, const EngineOptions& options = {});
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();  // ends what runs with kCancelled

  /// A GGUF LoRA adapter, or a soft prompt (infer/soft_prompt.h). kUnavailable: a worker computes, which takes none.
  /// kInvalidArgument: it does not fit the model, or leaves nothing of the context.
  Result<AdapterId> add_adapter(const std::filesystem::path& file);
  Result<AdapterId> add_soft_prompt(const std::filesystem::path& file);
  /// Requests that name it are refused from now on; it is dropped when the last one that runs has ended. Waits for no
  /// step.
  void remove_adapter(AdapterId id);

  /// Errors: an empty prompt or one that fills the context or the cache, a token beyond the vocabulary, an unknown
  /// adapter (kNotFound), a full queue (kUnavailable). After success the listener hears of every choice's end.
  Result<std::shared_ptr<EngineTicket>> submit(EngineRequest request, std::shared_ptr<AnswerListener> listener);

  /// While one lives, nothing that waits begins: what is submitted meanwhile begins together. In one lane, what is then
  /// computed beside what is a function of the requests and of the beginnings that are kept, and so is every answer.
  class Hold {
   public:
    explicit Hold(Engine& engine);
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold();

   private:
    Impl& impl_;
  };

  /// Lanes that have nothing to do forget all beginnings and open their memory anew when they begin again: after it and
  /// a Hold, answers do not depend on what came before.
  void forget_beginnings();

  /// From what waits and how fast that was worked off; nothing is refused by it. `alone`: as EngineRequest::invariant.
  ExpectedWait expected_wait(const std::string& client, int priority, AdapterId adapter, bool alone) const;
  const QueueLimits& queue_limits() const;

  EngineStats stats() const;
  const Tokenizer& tokenizer() const;
  std::string chat_template() const;
  int max_context() const;  // an adapter's soft prompt not counted
  int vocabulary() const;
  int soft_tokens(AdapterId adapter) const;  // fewer than max_context()

 private:
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailor
