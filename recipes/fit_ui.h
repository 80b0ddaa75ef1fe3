#pragma once
/// What a running `fit` tells its user. One interface, four faces: a live display, plain lines, JSON events, silence.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "core/progress.h"
#include "data/report.h"
#include "fit/budget.h"
#include "fit/trial.h"

namespace tailor {

/// What every long run says.
class RunUi {
 public:
  virtual ~RunUi() = default;
  virtual void note(std::string_view message) = 0;  // something the user should read
  virtual void warning(std::string_view message) = 0;
  virtual void stage(std::string_view name) = 0;  // "reading the data", "scoring the test part", …
  virtual void progress(const Progress& progress, double elapsed_seconds, double budget_seconds) = 0;  // 0: no budget
  virtual void text(std::string_view block) = 0;  // a finished block for people: advice, table, answer
  virtual void event(const Json& event) = 0;      // for programs
};

class FitUi : public RunUi {
 public:
  virtual void trial_started(const TrialRecord& record, double share_seconds, std::size_t index, std::size_t count) = 0;
  virtual void trial_finished(const TrialRecord& record) = 0;
};

}  // namespace tailor
