#pragma once
/// Shared by engine.cpp (what callers see), engine_lane.cpp (what computes) and engine_watch.cpp (what ends waiting).
/// Internal to this module.
///
/// A lane takes jobs from the queue, computes them step by step and tells their listeners; from where on it computes
/// is decided by its LaneBeginnings. A job in the queue is ended by the watch when it is cancelled or its time is over,
/// so that nobody waits for a lane to hear of it.

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "infer/drain_rate.h"
#include "infer/engine.h"
#include "infer/engine_job.h"
#include "infer/lane_beginnings.h"
#include "infer/lane_memory.h"
#include "infer/soft_prompt.h"

namespace tailor {

class Lane;

struct Engine::Impl final : CacheUser {
  std::shared_ptr<const LoadedModel> model;
  EngineOptions options;
  std::shared_ptr<ComputeShare> share;
  int max_context = 0;
  std::vector<std::int32_t> ends;
  int usual_lanes = 1, most_lanes = 1;
  std::unique_ptr<TorchWorker> torch;  // of the lane that computes one at a time; null: options.worker is empty, or it
                                       // has ended and is started again

  mutable std::mutex mutex;         // all below; whoever has it waits for no other lock that is held for long
  std::condition_variable changed;  // what lanes sleep on
  bool stopping = false;
  std::size_t lane_cells = 0;         // at most, a lane
  std::size_t alone_cells = 0;        // at most, the lane that computes one at a time, beside the others
  int held = 0;                       // Engine::Hold
  std::uint64_t times_forgotten = 0;  // Engine::forget_beginnings()
  std::int64_t next_id = 1, next_adapter = 1;
  std::map<AdapterId, EngineAdapter> adapters;
  RequestQueue queue;
  std::unordered_map<std::int64_t, std::unique_ptr<EngineJob>> waiting;
  std::unique_ptr<SharedBeginnings> beginnings;
  std::vector<std::unique_ptr<Lane>> lanes;
  EngineStats counts;
  /// Of the lanes that compute many at once, and of the one that computes one at a time.
  struct Drain {
    DrainRate rate;
    double done = 0;  // not in the rate yet
  };
  Drain drain_together, drain_alone;

  std::unique_ptr<CacheBudget::Part> cache;                        // null: nobody else's; not under the lock
  const std::shared_ptr<Alarm> alarm = std::make_shared<Alarm>();  // what the watch sleeps on
  std::thread watch;

  ~Impl() override;
  /// The watch: until the alarm is stopped.
  void watch_waiting();
  /// Takes what is cancelled or late from the queue; for tell_expired(). Under the lock.
  std::vector<std::unique_ptr<EngineJob>> take_expired(SteadyTime at);
  static void tell_expired(std::span<const std::unique_ptr<EngineJob>> expired);
  void watch_for_the_next() const;  // under the lock
  /// The watch looks again when the job is late.
  void watch_for(const EngineJob& job) const {
    if (job.request->deadline) alarm->ring_by(*job.request->deadline);
  }
  void limit_cache(std::uint64_t bytes) override;
  std::uint64_t held_cache() const override;
  std::uint64_t held_bytes() const;  // under the lock
  std::uint64_t cell_bytes() const { return model->cell_bytes(options.f32_cache); }
  /// More than this a lane cannot use: all its sequences at full length.
  std::uint64_t most_lane_cells() const;
  std::size_t lane_cells_of(std::uint64_t bytes) const;
  std::size_t alone_cells_of(std::uint64_t bytes) const;
  Status open_cache();
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
  bool by_worker() const { return !options.worker.empty(); }
  /// `beyond`: by the rotary factors of long texts.
  Result<SequenceBytes> soft_state(const SoftPrompt& prompt, bool beyond) const;
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
  std::size_t held_cells() const { return shown_held_; }
  std::optional<SteadyTime> computing_since() const { return computing_since_; }

 private:
  void run();
  // Under the engine's lock:
  void wait_for_work(std::unique_lock<std::mutex>& lock) const;
  bool has_work() const;
  bool holds_too_much() const;  // since the lanes' limit was lowered
  /// What was taken in before that has the room that there was then. False: it has.
  bool keep_promise(const EngineJob& job);
  bool may_admit(const QueuedRequest& request) const;
  bool has_room_for_all_of(const QueuedRequest& request) const;
  bool must_drain() const;
  bool adapter_removed() const;
  void drop_removed_adapter();
  std::vector<std::unique_ptr<EngineJob>> admit();  ///< returns those that were late

  void begin_new();
  Status begin(EngineJob& job);
  void end_expired();
  void look_again();

  struct Piece {
    EngineJob* job = nullptr;
    std::size_t count = 0;
    int first_index = 0;  // in the batch
  };
  void step();
  std::vector<Piece> plan();
  Status compute(std::vector<Piece>& pieces);
  Status compute_by_worker(Piece& piece);
  Status score_by_worker(EngineJob& job);
  void read(const Piece& piece);
  Status take_token(EngineJob& job, std::span<float> logits, std::optional<AnswerEnd>& end);

  void fail(EngineJob& job, const Error& error);
  void fail_all(const Error& error);
  /// The lane. Others may begin with what was computed of a complete answer.
  void leave(EngineJob& job, bool complete);
  void give_back(EngineJob& job);  // to the queue, to be computed anew
  std::unique_ptr<EngineJob> take_out(EngineJob& job);
  void begin_afresh();
  void publish();

  Engine::Impl& engine_;
  const bool alone_;
  LaneMemory memory_;
  LaneBeginnings beginnings_;
  std::vector<std::vector<float>> worker_logits_;  // of the piece, where a worker computes; empty: not asked for
  std::vector<std::unique_ptr<EngineJob>> jobs_;   // in the order in which they came
  AdapterId adapter_ = 0;
  std::size_t load_ = 0, shown_used_ = 0, shown_held_ = 0;
  std::optional<SteadyTime> computing_since_;  // without having ended a step; none: it waits for work
  std::uint64_t times_forgotten_ = 0;
  std::uint64_t new_prompt_ = 0, new_cached_ = 0, new_computed_ = 0, new_answer_ = 0;  // not in the engine's counts yet
  std::thread thread_;
};

}  // namespace tailor
