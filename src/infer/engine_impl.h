#pragma once
/// Shared by engine.cpp (what callers see) and engine_lane.cpp (what computes). Internal to this module.

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "infer/drain_rate.h"
#include "infer/engine.h"
#include "infer/kept_prefixes.h"
#include "infer/lane_memory.h"
#include "infer/prefix_tree.h"
#include "infer/soft_prompt.h"
#include "infer/text_stream.h"

namespace tailor {

class Lane;

struct EngineAdapter {
  AdapterId id = 0;
  llama_adapter_lora* lora = nullptr;
  SequenceBytes soft;  // virtual tokens as a sequence; null: none
  std::size_t soft_tokens = 0;
  int users = 0;         // answers that wait or run
  bool removed = false;  // goes with its last user
};

/// One answer on its way.
struct EngineJob {
  std::int64_t id = 0;
  std::shared_ptr<const EngineRequest> request;
  int choice = 0;
  std::shared_ptr<AnswerListener> listener;
  std::shared_ptr<EngineTicket> ticket;
  EngineAdapter* adapter = nullptr;
  std::string space;   // of beginnings: adapter and the request's own
  bool alone = false;  // computed by the lane that computes one at a time
  int max_tokens = 0;
  std::uint64_t work = 0, worked = 0;  // tokens as the queue accounts them, and what of them is done
  SteadyTime submitted, begun, first_token;

  TokenList tokens;          // prompt and answer so far
  std::size_t computed = 0;  // of these, in the lane
  std::size_t cached = 0;    // of the prompt, not computed
  std::optional<Sampler> sampler;
  TextStream text;
  bool told_prompt = false;
  std::vector<SampledToken> prompt_logprobs;

  // In a lane:
  bool begun_here = false;
  LaneSequence sequence;
  std::int64_t entry = -1;    // of the sequence; -1: others may not begin with it
  std::int64_t awaited = -1;  // entry of this lane whose first `awaited_tokens` are waited for
  std::size_t awaited_tokens = 0;
  bool importing = false;  // bytes are on their way

  std::size_t prompt_size() const { return request->prompt.size(); }
  /// Whether log p of the token after this one of the prompt is asked for.
  bool scored(std::size_t at) const {
    return request->prompt_logprobs >= 0 && at + 1 >= request->logprobs_from && at + 1 < prompt_size();
  }
  std::size_t answer_size() const { return tokens.size() - prompt_size(); }
};

/// A sequence of some lane that others may begin with.
struct KnownEntry {
  Lane* lane = nullptr;
  std::size_t computed = 0;  // tokens, virtual ones not counted
  bool awaits = false;       // another entry's tokens, so that none may wait for it
};

/// Bytes of a beginning, asked of the lane that has it.
struct PrefixOrder {
  std::int64_t entry = -1;
  std::size_t tokens = 0;
  Lane* to = nullptr;
  std::int64_t job = 0;
};
struct PrefixDelivery {
  std::int64_t job = 0;
  std::size_t tokens = 0;
  SequenceBytes bytes;  // null: it is gone
};

struct Engine::Impl {
  std::shared_ptr<const LoadedModel> model;
  EngineOptions options;
  std::shared_ptr<ComputeShare> share;
  int max_context = 0;
  std::size_t lane_cells = 0;       // at most, a lane
  std::size_t cached_cells = 2048;  // a lane keeps for those to come; more make every step slower
  std::vector<std::int32_t> ends;
  int usual_lanes = 1, most_lanes = 1;
  std::unique_ptr<TorchWorker> torch;  // of the lane that computes one at a time; null: options.worker is empty, or it
                                       // has ended and is started again

  mutable std::mutex mutex;  // all below
  std::condition_variable changed;
  bool stopping = false;
  int held = 0;                       // Engine::Hold
  std::uint64_t times_forgotten = 0;  // Engine::forget_beginnings()
  std::int64_t next_id = 1, next_entry = 1, next_adapter = 1;
  std::map<AdapterId, EngineAdapter> adapters;
  RequestQueue queue;
  std::unordered_map<std::int64_t, std::unique_ptr<EngineJob>> waiting;
  PrefixTree tree;  // of the entries of all lanes
  std::unordered_map<std::int64_t, KnownEntry> entries;
  std::unique_ptr<KeptPrefixes> kept;
  std::vector<std::unique_ptr<Lane>> lanes;
  EngineStats counts;
  /// Of the lanes that compute many at once, and of the one that computes one at a time.
  struct Drain {
    DrainRate rate;
    double done = 0;  // not in the rate yet
  };
  Drain drain_together, drain_alone;

  ~Impl();
  LaneMemoryOptions lane_options(bool alone) const;
  /// Starts another lane where one is missing. Under the lock.
  void open_lanes();
  /// How many of this group lanes could take, those not opened yet included. Under the lock.
  std::size_t places(std::int64_t group) const;
  /// Whether some of those that wait find no place before others have ended. Under the lock.
  bool is_behind(std::int64_t group, std::size_t count) const { return count > places(group); }
  std::map<std::int64_t, std::size_t> waiting_groups() const;
  /// The job came so far in its work as the queue accounts it. Under the lock.
  void account(EngineJob& job, std::uint64_t worked);
  /// Brings the rates up to now. Under the lock.
  void measure();
  double drain_per_second(bool of_alone) const {
    return (of_alone ? drain_alone : drain_together).rate.per_second().value_or(0);
  }
  /// The adapter's user has ended. Under the lock.
  void release(EngineAdapter& adapter);
  /// Drops a removed adapter that no answer and no lane has. Under the lock.
  void forget_if_unused(EngineAdapter& adapter);
  Result<AdapterId> add(EngineAdapter adapter);
  /// Of tree and entries. Under the lock.
  void forget(std::int64_t entry) {
    tree.remove(entry);
    entries.erase(entry);
  }
  bool by_worker() const { return !options.worker.empty(); }
  Result<SequenceBytes> soft_state(const SoftPrompt& prompt) const;
};

/// One context and the thread that computes in it.
class Lane {
 public:
  Lane(Engine::Impl& engine, bool alone);
  ~Lane();
  void join();  // after Impl::stopping: waits for the thread

  // Under the engine's lock:
  std::size_t load() const { return load_; }
  bool alone() const { return alone_; }
  AdapterId adapter() const { return adapter_; }
  std::size_t used_cells() const { return shown_used_; }
  std::vector<PrefixOrder> orders;
  std::vector<PrefixDelivery> deliveries;

 private:
  struct Cached {
    std::int64_t entry;
    std::string space;
    TokenList tokens;
    LaneSequence sequence;
    std::uint64_t used;
  };

  void run();
  // Under the engine's lock:
  bool has_work() const;
  bool runnable(const EngineJob& job) const;
  bool may_admit(const QueuedRequest& request) const;
  bool has_room_for_all_of(const QueuedRequest& request) const;
  bool must_drain() const;
  bool adapter_removed() const;
  void drop_removed_adapter();
  void admit(std::vector<std::unique_ptr<EngineJob>>& expired);

  void begin_new();
  Status begin(EngineJob& job);
  Status find_beginning(EngineJob& job);
  Status begin_with_soft_prompt(EngineJob& job);
  Status use_awaited(EngineJob& job);
  void end_expired();
  void serve_orders();
  void take_deliveries(const std::vector<PrefixDelivery>& arrived);

  struct Piece {
    EngineJob* job = nullptr;
    std::size_t count = 0;
    int first_index = 0;  // in the batch
  };
  void step();
  std::vector<Piece> plan();
  /// False: not even by giving up what is kept and others' places.
  Result<bool> room_for(std::size_t tokens);
  Status compute(std::vector<Piece>& pieces);
  Status compute_by_worker(Piece& piece);
  Status score_by_worker(EngineJob& job);
  void read(const Piece& piece);
  Status take_token(EngineJob& job, std::span<float> logits, std::optional<AnswerEnd>& end);

  void fail(EngineJob& job, const Error& error);
  void leave(EngineJob& job, bool keep);  // the lane; `keep`: what was computed, for others
  void give_back(EngineJob& job);         // to the queue, to be computed anew
  void remember(Cached cached);
  bool evict_one();
  void forget_last();
  void begin_afresh();
  void publish();
  const LaneSequence* sequence_of(std::int64_t entry) const;

  Engine::Impl& engine_;
  const bool alone_;
  LaneMemory memory_;
  std::vector<std::vector<float>> worker_logits_;  // of the piece, where a worker computes; empty: not asked for
  std::vector<std::unique_ptr<EngineJob>> jobs_;   // in the order in which they came
  std::vector<Cached> cached_;
  std::vector<PrefixOrder> pending_;  // of others, not computed far enough yet
  AdapterId adapter_ = 0;
  std::size_t load_ = 0, shown_used_ = 0;
  std::uint64_t clock_ = 0, times_forgotten_ = 0;
  std::uint64_t new_prompt_ = 0, new_cached_ = 0, new_computed_ = 0, new_answer_ = 0;  // not in the engine's counts yet
  std::thread thread_;
};

}  // namespace tailor
