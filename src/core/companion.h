#pragma once
/// A child process that answers every line with one line, for as long as we want it.

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "core/cancel.h"
#include "core/process.h"
#include "core/result.h"

namespace tailor {

/// Ends with this object: its input is closed, and if it does not go, it is killed. Threads: one call at a time.
class Companion {
 public:
  static Result<std::unique_ptr<Companion>> start(const ProcessOptions& options);
  ~Companion();
  Companion(const Companion&) = delete;
  Companion& operator=(const Companion&) = delete;

  /// Sends `line` (without "\n") and returns the line that comes back. Errors: the process has ended, cancelled (the
  /// companion is of no use after that).
  Result<std::string> ask(std::string_view line, const CancelToken& cancel);
  /// The next line that comes unasked.
  Result<std::string> listen(const CancelToken& cancel) { return exchange({}, cancel); }

 private:
  Companion(std::string name, pid_t pid, int to, int from, double grace)
      : name_(std::move(name)), pid_(pid), to_(to), from_(from), grace_(grace) {}
  Error gone() const;
  Result<std::string> exchange(std::string_view message, const CancelToken& cancel);

  std::string name_;
  pid_t pid_;
  int to_, from_;
  double grace_;
  std::string pending_;
};

}  // namespace tailor
