#pragma once
/// What a fine-tuning job tells of itself while it runs, on its way into the store.

#include <deque>
#include <string>
#include <utility>

#include "core/log.h"
#include "store/job_store.h"

namespace tailor {

struct FineTuneProgress;  // fine_tuning.h

/// Whether it goes by: another process at the store, a full disk.
bool may_pass(const Error& error);

/// Nothing is lost while another process holds the store or its disk has no room: what is not yet there is kept in
/// memory and goes in before what comes later, with the time at which it was told.
/// Threads: one at a time.
class JobNotes {
 public:
  /// `jobs` and `log` outlive this.
  JobNotes(JobStore& jobs, std::string id, Logger& log) : jobs_(jobs), id_(std::move(id)), log_(log) {}
  JobNotes(const JobNotes&) = delete;
  JobNotes& operator=(const JobNotes&) = delete;

  void add(JobEvent event);
  void set(const Json& fields);  ///< of the job's result
  /// What is not yet in the store. kUnavailable, kIo: some of it still is not. What the store never takes, since the
  /// job has ended, say, is dropped.
  Status write();

 private:
  void try_to_write();

  JobStore& jobs_;
  const std::string id_;
  Logger& log_;
  std::deque<JobEvent> events_;
  Json fields_ = Json::object();
  bool warned_ = false;
};

/// A training's words and figures become notes of its job, which outlive it.
FineTuneProgress progress_into(JobNotes& notes);

}  // namespace tailor
