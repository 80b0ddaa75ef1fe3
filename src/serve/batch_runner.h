#pragma once
/// Works off batches in the background: their requests go through the handlers of the API, under their key, behind
/// everything that somebody waits for.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "serve/api_server.h"
#include "serve/background_seat.h"
#include "serve/batch_input.h"
#include "serve/batch_work.h"
#include "serve/metric_text.h"
#include "store/store.h"

namespace tailor {

struct BatchOptions {
  std::size_t batches = 8;  // worked on at a time, in turn; later ones wait. A key that has none of them has one beside
                            // them, up to twice as many in all
  std::size_t answers = 16;  // asked for at a time, of all batches together; a request for more goes alone
  std::size_t beside = 2;    // of a model while others wait for its answers: their steps stay short
  int attempts = 3;          // at a request that takes too long
  BatchInputLimits input;
  BackgroundSeat* seat = nullptr;                // whether batches are begun here; null: all are. Outlives the runner
  UnixClock clock;                               // of expiry; empty: the system's
  std::chrono::milliseconds look_every{1000};    // for the ends of windows, and for what other processes cancelled
  std::chrono::milliseconds retry_after{5'000};  // when the disk had no room
};

/// Answers are on the disk before they are counted; a server that is stopped or killed goes on after the last one that
/// is there, and asks at most those again that were under way. Only a full disk makes a batch wait: it goes on when
/// there is room. Windows end on time, and what is cancelled ends at once, also while it waits for its turn. Keys take
/// turns, whatever each has waiting. Batches of another server at the store that has ended are taken up; one of which
/// none of the models is here is left to another server, where there is one that may have them.
/// Threads: one of its own; calls from any.
class BatchRunner {
 public:
  /// Goes on with batches that a server before this one left. `services.store` is there; all of it outlives this, and
  /// its models are asked for as the registry has them then.
  BatchRunner(const ApiServices& services, Authenticator& door, std::shared_ptr<const RequestObservers> observers,
              BatchOptions options = {});
  BatchRunner(const BatchRunner&) = delete;
  BatchRunner& operator=(const BatchRunner&) = delete;
  ~BatchRunner();  // ends what is under way; it is asked again when a server starts again

  std::int64_t now() const { return options_.clock(); }  ///< Unix seconds
  void wake();                                           ///< there may be a batch to take, or one that was cancelled
  /// What is done stays, what is under way is ended. Cancelling already: nothing. kInvalidArgument: it has ended.
  Result<Batch> cancel(const std::string& id);

  void drain();                                       ///< nothing new is begun
  bool wait_idle(std::chrono::milliseconds timeout);  ///< after drain(): whether nothing is under way
  void write_metrics(MetricText& out) const;
  static void write_zeros(MetricText& out);  ///< the same series of a server that takes no batches

 private:
  struct Reply {
    std::string batch;
    std::size_t line = 0;
    BatchReply reply;
  };
  /// Outlives the runner where a model ends a request late.
  struct Inbox {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Reply> replies;
    bool woken = true;
  };

  void run();
  void remove_left();
  void recover();
  void hear(std::vector<Reply> replies);
  void take_batches();
  Result<std::optional<Batch>> take();
  void begin(const Batch& taken);
  bool left_to_others(const BatchWork& batch);
  HasModel models_for(const Batch& batch) const;
  bool start(BatchWork& batch);
  void read_again();
  void stall(BatchWork& batch, const Error& error);
  void go_on(BatchWork& batch);
  void look();
  void save(BatchWork& batch);
  std::vector<BatchWork*> in_turn() const;
  bool submit_next();
  bool submit(BatchWork& batch);
  bool has_room(const std::string& endpoint, const std::string& model, std::size_t answers) const;
  void end(BatchWork& batch, BatchStatus as, Json errors = Json::array());
  void end_where_done();
  bool finish(BatchWork& batch);
  SteadyTime next_look() const;

  ApiServices services_;
  Authenticator& door_;
  std::shared_ptr<const RequestObservers> observers_;
  BatchOptions options_;
  Store& store_;
  Logger& log_;
  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  std::vector<std::unique_ptr<BatchWork>> active_;
  std::uint64_t turns_ = 0;
  SteadyTime looked_{};
  bool untaken_ = false;      // the store could not say what is next
  bool unrecovered_ = false;  // nor what dead servers left
  std::atomic<std::size_t> under_way_{0}, working_on_{0}, stalled_{0};
  std::atomic<std::uint64_t> completed_{0}, failed_{0};
  std::atomic<bool> draining_{false}, stopping_{false};
  std::thread thread_;  // last
};

}  // namespace tailor
