#pragma once
/// What the answers of a lane begin with, so that nothing is computed twice: tokens that the lane has computed before
/// and kept, that another of its answers is computing, that another lane has, or that are kept as bytes outside of all
/// lanes. Internal to this module.
///
/// The seam: a lane computes, this says from where on. begin() gives an answer its sequence, with its first tokens in
/// it or something to wait for; the lane computes the rest and gives the sequence back, by keep() or drop(). What no
/// answer uses is kept while nothing else needs the room.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "infer/engine_job.h"
#include "infer/kept_prefixes.h"
#include "infer/lane_memory.h"
#include "infer/prefix_tree.h"

namespace tailor {

class LaneBeginnings;

/// A sequence of some lane that others may begin with.
struct KnownEntry {
  LaneBeginnings* home = nullptr;
  std::size_t computed = 0;  // tokens, virtual ones not counted
  bool awaits = false;       // another entry's tokens, so that none may wait for it
};

/// What the lanes of one engine know of each other. All of it under the engine's lock, which a lane that sleeps holds
/// when it looks whether there is something to do.
struct SharedBeginnings {
  SharedBeginnings(std::mutex& engine_mutex, std::condition_variable& engine_changed, std::uint64_t kept_bytes)
      : mutex(engine_mutex), changed(engine_changed), kept(kept_bytes) {}

  std::mutex& mutex;
  std::condition_variable& changed;
  PrefixTree tree;  // of the entries of all lanes
  std::unordered_map<std::int64_t, KnownEntry> entries;
  std::int64_t next_entry = 1;
  KeptPrefixes kept;
  /// Nobody will ask for this space again: nothing of it is kept outside of lanes. Empty: there is none such.
  std::function<bool(const std::string& space)> gone;

  void forget(std::int64_t entry) {
    tree.remove(entry);
    entries.erase(entry);
  }
};

/// Threads: the lane's own, without the engine's lock, where nothing else is said. What it refers to outlives it, and
/// so does it while others at the same SharedBeginnings work.
class LaneBeginnings {
 public:
  LaneBeginnings(SharedBeginnings& shared, LaneMemory& memory) : shared_(shared), memory_(memory) {}
  LaneBeginnings(const LaneBeginnings&) = delete;
  LaneBeginnings& operator=(const LaneBeginnings&) = delete;

  /// A sequence for the job, whose adapter the memory's context has. Afterwards its virtual tokens and the first
  /// `job.computed` of its tokens are in it, all but the last one at most; or job.waits(). The job keeps its address
  /// until keep() or drop(), also where this fails.
  Status begin(EngineJob& job);
  /// Of a job that awaits another's tokens: takes them once they are computed; where they will never be, begins anew.
  Status look_again(EngineJob& job);
  /// The answer has ended: what was computed of it is for others to begin with. A job that may not be shared is
  /// dropped. Its sequence, space and tokens are no longer its own. Its adapter may be gone already, here and in
  /// drop().
  void keep(EngineJob& job);
  /// Nobody begins with it any more. The job may begin again.
  void drop(EngineJob& job);

  /// Gives up all that is kept here.
  void forget_all();
  /// Room for so many more cells, at the price of what is kept. False: not even then.
  Result<bool> make_room(std::size_t cells);

  // What passes between lanes.
  /// Hands the bytes that came to the jobs that wait for them; `fail` hears of those for which there is no room.
  void take_deliveries(const std::function<void(EngineJob&, const Error&)>& fail);
  /// Answers what other lanes asked for, as far as it is computed.
  void serve_orders();
  /// After a failure of the lane, when all its jobs have been dropped: gives up all that is kept, and tells other lanes
  /// that nothing comes.
  void give_up();

  // Under the engine's lock:
  /// Another lane has asked or answered since the last collect().
  bool has_mail() const { return !orders_.empty() || !deliveries_.empty(); }
  /// For take_deliveries() and serve_orders().
  void collect();
  /// Whether there is something to do for a job that waits, or it does not wait.
  bool may_go_on(const EngineJob& job) const;
  /// Tells other lanes how far the job is.
  void publish(const EngineJob& job);

 private:
  struct Cached {
    std::int64_t entry;
    std::string space;
    TokenList tokens;
    LaneSequence sequence;
    std::uint64_t used;
  };
  struct Order {  // the beginning of an entry of this lane, for one of another
    std::int64_t entry = -1;
    std::size_t tokens = 0;
    LaneBeginnings* to = nullptr;
    std::int64_t to_entry = -1;
  };
  struct Delivery {
    std::int64_t entry = -1;  // that asked
    std::size_t tokens = 0;
    SequenceBytes bytes;  // null: it is gone
  };
  struct Source {  // an entry of this lane: of a job or cached
    const LaneSequence* sequence;
    const std::string* space;
    const TokenList* tokens;
    std::size_t soft;  // virtual tokens before them
  };

  /// None: the entry is gone, or will never have so many tokens.
  std::optional<Source> source(std::int64_t entry, std::size_t tokens) const;
  Status find(EngineJob& job);
  KeptPrefixes::Match choose(EngineJob& job);
  Status begin_with_soft_prompt(EngineJob& job);
  void answer(const Order& order, SequenceBytes bytes);
  void remember(Cached cached);
  void forget(Cached& gone);
  bool evict_one();

  SharedBeginnings& shared_;
  LaneMemory& memory_;
  std::unordered_map<std::int64_t, EngineJob*> jobs_;  // by entry
  std::vector<Cached> cached_;
  std::uint64_t clock_ = 0;
  std::vector<Order> orders_;         // under the engine's lock
  std::vector<Delivery> deliveries_;  // the same
  std::vector<Order> pending_;        // collected, not computed far enough yet
  std::vector<Delivery> arrived_;     // collected
};

}  // namespace tailor
