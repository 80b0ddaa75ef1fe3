#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>

#include "apps/tailor/verbs.h"
#include "core/files.h"
#include "serve/top_view.h"
#include "serve/web_client.h"
#include "text/unicode.h"

namespace tailor {
namespace {

constexpr std::chrono::seconds kSpan{10};

struct TopFlags {
  std::string url = "http://127.0.0.1:8080";
  std::filesystem::path key_file;
  double interval_s = 2;
  bool once = false;
};

/// Single keys without echo, and the terminal's other page, while it lives.
class RawTerminal {
 public:
  RawTerminal() {
    if (isatty(STDIN_FILENO) == 1 && tcgetattr(STDIN_FILENO, &before_) == 0) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      changed_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
    fmt::print("\x1b[?1049h\x1b[?25l");
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  ~RawTerminal() {
    if (changed_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    fmt::print("\x1b[?25h\x1b[?1049l");
    std::fflush(stdout);
  }
  /// Whether "q" came within the time; ends early where the terminal's size changed.
  bool quit_within(int milliseconds) const {
    pollfd keys{changed_ ? STDIN_FILENO : -1, POLLIN, 0};
    if (poll(&keys, 1, milliseconds) <= 0) return false;
    char key = 0;
    return read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q';
  }

 private:
  termios before_{};
  bool changed_ = false;
};

TopSize terminal_size() {
  TopSize out;
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    out.columns = size.ws_col;
    out.rows = size.ws_row;
  }
  const char* none = std::getenv("NO_COLOR");
  out.colour = isatty(STDOUT_FILENO) == 1 && (none == nullptr || *none == 0);
  return out;
}

Result<std::string> read_key(const std::filesystem::path& file) {
  TAILOR_TRY(const std::string text, read_file(file, 4096));
  std::string key(trim(text));
  if (key.empty()) return Error{ErrorCode::kInvalidArgument, fmt::format("{} holds no key", file.string()), ""};
  return key;
}

Result<TopSnapshot> look(const WebRequest& request, const CancelToken& cancel) {
  TAILOR_TRY(const WebReply reply, ask_web(request, &cancel));
  if (reply.status == 401 || reply.status == 403)
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} answers {}: it wants a key with the scope metrics", request.url, reply.status),
                 "--key-file FILE"};
  if (reply.status != 200)
    return Error{ErrorCode::kUnavailable, fmt::format("{} answers {}", request.url, reply.status), ""};
  TopSnapshot out{std::chrono::steady_clock::now(), {}};
  TAILOR_TRY(out.families, parse_metrics(reply.body));
  return out;
}

Result<int> top(const TopFlags& flags, const CancelToken& cancel) {
  std::string url = flags.url;
  while (url.ends_with('/')) url.pop_back();
  WebRequest request{.url = url + "/metrics", .timeout = std::chrono::milliseconds(5000)};
  if (!flags.key_file.empty()) {
    TAILOR_TRY(const std::string key, read_key(flags.key_file));
    request.fields.emplace_back("Authorization", "Bearer " + key);
  }
  TAILOR_TRY(TopSnapshot now, look(request, cancel));
  if (flags.once) {
    TopSize size = terminal_size();
    if (isatty(STDOUT_FILENO) != 1) size.rows = 1000;
    fmt::print("{}", top_page(now, now, url, size));
    return 0;
  }
  if (isatty(STDOUT_FILENO) != 1)
    return Error{ErrorCode::kInvalidArgument, "standard output is no terminal", "`tailor top --once` prints one page"};
  const RawTerminal terminal;
  std::deque<TopSnapshot> past{now};  // of the last few seconds: rates of a single look jump
  std::string problem;
  int waited_ms = 0;
  TopSize drawn;
  constexpr int kLookMs = 100;  // for keys and a new size
  for (bool fresh = true; !cancel.cancelled();) {
    TopSize size = terminal_size();
    if (fresh || size.columns != drawn.columns || size.rows != drawn.rows) {
      drawn = size;
      --size.rows;
      std::string page = top_page(past.front(), now, url, size);
      std::string screen = "\x1b[H";
      for (const char c : page) screen += c == '\n' ? std::string("\x1b[K\n") : std::string(1, c);
      const std::string foot = problem.empty() ? fmt::format("q quits; every {:g} s", flags.interval_s) : problem;
      screen +=
          "\x1b[J" + fmt::format("\x1b[{};1H", drawn.rows) + foot.substr(0, static_cast<std::size_t>(drawn.columns));
      fmt::print("{}", screen);
      std::fflush(stdout);
      fresh = false;
    }
    if (terminal.quit_within(kLookMs)) break;
    waited_ms += kLookMs;
    if (waited_ms < flags.interval_s * 1000) continue;
    waited_ms = 0;
    Result<TopSnapshot> next = look(request, cancel);
    fresh = true;
    problem.clear();
    if (!next.has_value()) {
      problem = next.error().message;  // it may come back
      continue;
    }
    now = std::move(*next);
    past.push_back(now);
    while (past.size() > 2 && now.at - past[1].at >= kSpan) past.pop_front();
  }
  return 0;
}

}  // namespace

void add_top(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("top", "watch a server: requests, tokens a second, times, cache");
  auto flags = std::make_shared<TopFlags>();
  verb->add_option("url,--url", flags->url, "of the server")->capture_default_str()->type_name("URL");
  verb->add_option("--key-file", flags->key_file, "file with a key that may read metrics")->type_name("FILE");
  verb->add_option("--interval", flags->interval_s, "seconds between looks")
      ->check(CLI::Range(0.2, 3600.0).description(""))
      ->capture_default_str()
      ->type_name("S");
  verb->add_flag("--once", flags->once, "print one page, of all since the server's start, and end");
  verb->footer("Example:  tailor top http://127.0.0.1:8080");
  verb->callback([&invocation, flags] {
    invocation.run = [&invocation, flags]() -> Result<int> { return top(*flags, invocation.cancel); };
  });
}

}  // namespace tailor
