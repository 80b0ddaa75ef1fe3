#include "apps/tailor/ui.h"

#include <fmt/color.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "core/json.h"
#include "fit/table.h"

namespace tailor {
namespace {

using Clock = std::chrono::steady_clock;

std::string outcome(const TrialRecord& r) {
  if (r.status == TrialStatus::kSkipped) return "skipped: " + r.reason;
  if (r.status == TrialStatus::kFailed) return "failed: " + r.reason;
  std::string text = fmt::format("{:.1f} % on {} validation rows, {} to train, p50 {:.1f} ms", 100 * r.validation_score,
                                 r.n_validation, human_seconds(r.train_seconds), r.latency_p50_ms);
  return text;
}

/// Nothing but errors and warnings, on standard error.
class QuietUi final : public FitUi {
 public:
  void note(std::string_view) override {}
  void warning(std::string_view message) override { fmt::print(stderr, "warning: {}\n", message); }
  void stage(std::string_view) override {}
  void progress(const Progress&, double, double) override {}
  void trial_started(const TrialRecord&, double, std::size_t, std::size_t) override {}
  void trial_finished(const TrialRecord&) override {}
  void text(std::string_view) override {}
  void event(const Json&) override {}
};

/// One JSON object a line on standard output (docs/EVENTS.md).
class JsonUi final : public FitUi {
 public:
  void note(std::string_view message) override { print({{"event", "note"}, {"message", message}}); }
  void warning(std::string_view message) override { print({{"event", "warning"}, {"message", message}}); }
  void stage(std::string_view name) override { print({{"event", "stage"}, {"stage", name}}); }
  void progress(const Progress& p, double elapsed, double budget) override {
    Json event{{"event", "progress"}, {"stage", p.stage},           {"done", p.done},
               {"total", p.total},    {"elapsed_seconds", elapsed}, {"budget_seconds", budget}};
    if (p.loss >= 0) event["loss"] = p.loss;
    print(event);
  }
  void trial_started(const TrialRecord& r, double share, std::size_t index, std::size_t count) override {
    print({{"event", "trial_started"}, {"id", r.id}, {"share_seconds", share}, {"index", index}, {"count", count}});
  }
  void trial_finished(const TrialRecord&) override {}  // the "trial" event says it
  void text(std::string_view) override {}
  void event(const Json& event) override { print(event); }

 private:
  static void print(const Json& event) {
    fmt::print("{}\n", dump_json(event));
    std::fflush(stdout);
  }
};

/// Lines for files and pipes: a line a stage and a candidate, no control characters.
class PlainUi final : public FitUi {
 public:
  void note(std::string_view message) override { line(message); }
  void warning(std::string_view message) override {
    std::fflush(stdout);
    fmt::print(stderr, "warning: {}\n", message);
  }
  void stage(std::string_view name) override { line(name); }
  void progress(const Progress&, double, double) override {}
  void trial_started(const TrialRecord& r, double share, std::size_t index, std::size_t count) override {
    line(fmt::format("[{}/{}] {} (up to {})", index + 1, count, r.id, human_seconds(share)));
  }
  void trial_finished(const TrialRecord& r) override { line(fmt::format("  {} {}", r.id, outcome(r))); }
  void text(std::string_view block) override { line(block); }
  void event(const Json&) override {}

 private:
  static void line(std::string_view text) {
    fmt::print("{}\n", text);
    std::fflush(stdout);
  }
};

/// A bar that is redrawn in place.
class TerminalUi final : public FitUi {
 public:
  TerminalUi() : colour_(std::getenv("NO_COLOR") == nullptr) {}
  ~TerminalUi() override { clear(); }
  void note(std::string_view message) override { above(message); }
  void warning(std::string_view message) override {
    print_above(paint(reflow(fmt::format("! {}", message), width()), fmt::fg(fmt::terminal_color::yellow)));
  }
  void stage(std::string_view name) override {
    clear();
    status_ = name;
    draw({std::string(name)}, 0, 0);
  }
  void progress(const Progress& p, double elapsed, double budget) override {
    const auto now = Clock::now();
    if (now - drawn_ < std::chrono::milliseconds(80)) return;
    drawn_ = now;
    draw(p, elapsed, budget);
  }
  void trial_started(const TrialRecord& r, double share, std::size_t index, std::size_t count) override {
    trial_ = fmt::format("[{}/{}] {}", index + 1, count, r.id);
    share_ = share;
    trial_start_ = Clock::now();
    draw({"starting"}, 0, 0);
  }
  void trial_finished(const TrialRecord& r) override {
    trial_.clear();
    const char* mark = r.ok() ? "✓" : r.status == TrialStatus::kSkipped ? "–" : "✗";
    const auto style = r.ok()                              ? fmt::fg(fmt::terminal_color::green)
                       : r.status == TrialStatus::kSkipped ? fmt::emphasis::faint
                                                           : fmt::fg(fmt::terminal_color::red);
    const std::string lines = reflow(fmt::format("{} {:<38} {}", mark, r.id, outcome(r)), width());
    print_above(paint(mark, style) + lines.substr(std::string_view(mark).size()));
  }
  void text(std::string_view block) override { above(block); }
  void event(const Json&) override {}

 private:
  std::string paint(std::string_view text, fmt::text_style style) const {
    return colour_ ? fmt::format(style, "{}", text) : std::string(text);
  }
  static std::size_t width() {
    winsize size{};
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  }
  void clear() {
    if (!shown_) return;
    fmt::print("\r\033[K");
    std::fflush(stdout);
    shown_ = false;
  }
  void above(std::string_view text) { print_above(reflow(text, width())); }
  void print_above(std::string_view text) {
    clear();
    fmt::print("{}\n", text);
    std::fflush(stdout);
  }
  void draw(const Progress& p, double elapsed, double budget) {
    std::string line;
    for (const int detail : {3, 2, 1, 0}) {  // what the terminal has room for
      line = status_line(p, elapsed, budget, detail);
      if (display_width(line) < width()) break;
    }
    fmt::print("\r\033[K{}", display_width(line) < width() ? line : fit_width(line, width() - 1));
    std::fflush(stdout);
    shown_ = true;
  }
  std::string status_line(const Progress& p, double elapsed, double budget, int detail) const {
    std::string line = trial_;
    if (p.total > 0) {
      const double share = std::clamp(p.done / p.total, 0.0, 1.0);
      const int cells = detail >= 2 ? 20 : 10;
      const int full = static_cast<int>(share * cells);
      line += line.empty() ? "" : "  ";
      for (int i = 0; i < cells; ++i) line += i < full ? "█" : "░";
      line += fmt::format(" {:3.0f} %", 100 * share);
    }
    line += (line.empty() ? "" : "  ") + p.stage;
    if (p.loss >= 0 && detail >= 1) line += fmt::format(", loss {:.3f}", p.loss);
    if (!trial_.empty() && detail >= 3) {
      const double spent = std::chrono::duration<double>(Clock::now() - trial_start_).count();
      line += fmt::format("  {} of {}", human_seconds(spent), human_seconds(share_));
    }
    if (budget > 0)
      line += fmt::format("  · {}{} left", human_seconds(std::max(0.0, budget - elapsed)),
                          detail >= 3 ? " of the budget" : "");
    return line;
  }

  bool colour_;
  bool shown_ = false;
  std::string status_;
  std::string trial_;
  double share_ = 0;
  Clock::time_point trial_start_, drawn_;
};

}  // namespace

std::unique_ptr<FitUi> make_ui(UiKind kind) {
  if (kind == UiKind::kJson) return std::make_unique<JsonUi>();
  if (kind == UiKind::kQuiet) return std::make_unique<QuietUi>();
  if (isatty(STDOUT_FILENO) != 0) return std::make_unique<TerminalUi>();
  return std::make_unique<PlainUi>();
}

}  // namespace tailor
