#include "serve/top_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

namespace tailor {
namespace {

using Labels = std::map<std::string, std::string>;

bool matches(const Labels& labels, const Labels& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& w) {
    const auto found = labels.find(w.first);
    return found != labels.end() && found->second == w.second;
  });
}

class Reader {
 public:
  Reader(const TopSnapshot& before, const TopSnapshot& now) : before_(before), now_(now) {
    seconds_ = std::chrono::duration<double>(now.at - before.at).count();
    since_start_ = seconds_ <= 0;
    if (since_start_) {
      const double began = gauge("process_start_time_seconds");
      const double unix_now =
          std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
      seconds_ = began > 0 ? std::max(1.0, unix_now - began) : 1;
    }
  }
  double seconds() const { return seconds_; }
  bool since_start() const { return since_start_; }

  double gauge(const char* name, const Labels& labels = {}) const { return sum(now_, name, labels); }
  /// Between the snapshots. A counter that fell has begun anew.
  double grown(const char* name, const Labels& labels = {}) const {
    const double now = sum(now_, name, labels), before = since_start_ ? 0 : sum(before_, name, labels);
    return now >= before ? now - before : now;
  }
  double rate(const char* name, const Labels& labels = {}) const { return grown(name, labels) / seconds_; }
  double quantile(const std::string& family, const Labels& labels, double share) const {
    std::map<double, double> buckets;
    add_buckets(now_, family, labels, 1, buckets);
    if (!since_start_) {
      std::map<double, double> older = buckets;
      add_buckets(before_, family, labels, -1, older);
      const bool fell = std::any_of(older.begin(), older.end(), [](const auto& b) { return b.second < 0; });
      if (!fell) buckets = std::move(older);
    }
    return histogram_quantile({buckets.begin(), buckets.end()}, share);
  }
  std::vector<Labels> series(const char* name) const {
    std::vector<Labels> out;
    for (const MetricFamily& family : now_.families) {
      if (family.name != name) continue;
      for (const MetricSample& sample : family.samples) out.push_back(sample.labels);
    }
    return out;
  }

 private:
  static void each(const TopSnapshot& from, const std::string& family, const std::string& name, const Labels& labels,
                   const std::function<void(const MetricSample&)>& visit) {
    for (const MetricFamily& f : from.families) {
      if (f.name != family) continue;
      for (const MetricSample& sample : f.samples) {
        if (sample.name == name && matches(sample.labels, labels)) visit(sample);
      }
    }
  }
  static double sum(const TopSnapshot& from, const std::string& name, const Labels& labels) {
    double out = 0;
    each(from, name, name, labels, [&](const MetricSample& s) { out += s.value; });
    return out;
  }
  static void add_buckets(const TopSnapshot& from, const std::string& family, const Labels& labels, double sign,
                          std::map<double, double>& out) {
    each(from, family, family + "_bucket", labels, [&](const MetricSample& s) {
      const std::string& le = s.labels.at("le");
      out[le == "+Inf" ? INFINITY : std::stod(le)] += sign * s.value;
    });
  }
  const TopSnapshot& before_;
  const TopSnapshot& now_;
  double seconds_ = 0;
  bool since_start_ = false;
};

std::string shown_seconds(double s) {
  if (s < 0) return "-";
  if (s < 0.9995) return fmt::format("{:.{}f} ms", s * 1000, s < 0.00995 ? 1 : 0);
  return fmt::format("{:.{}f} s", s, s < 10 ? 2 : 1);
}

std::string shown_count(double n) {
  if (n < 1e4) return fmt::format("{:.0f}", n);
  if (n < 1e6) return fmt::format("{:.1f}k", n / 1e3);
  return n < 1e9 ? fmt::format("{:.1f}M", n / 1e6) : fmt::format("{:.1f}G", n / 1e9);
}

std::string shown_bytes(double n) {
  return n < 1e6   ? fmt::format("{:.0f} kB", n / 1e3)
         : n < 1e9 ? fmt::format("{:.0f} MB", n / 1e6)
                   : fmt::format("{:.1f} GB", n / 1e9);
}

std::string shown_age(double s) {
  const auto n = static_cast<long>(s);
  if (n < 60) return fmt::format("{} s", n);
  if (n < 3600) return fmt::format("{} min", n / 60);
  return n < 86400 ? fmt::format("{} h {} min", n / 3600, n / 60 % 60)
                   : fmt::format("{} d {} h", n / 86400, n / 3600 % 24);
}

std::string bar(double share, int width) {
  const int full = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * width));
  return std::string(static_cast<std::size_t>(full), '#') + std::string(static_cast<std::size_t>(width - full), '.');
}

/// Names come from the server: what would move the cursor is not shown. ASCII, so that bytes are columns.
std::string cell(const std::string& text, std::size_t width) {
  std::string out;
  for (const char c : text) out += c >= 0x20 && c < 0x7f ? c : '?';
  if (out.size() > width) out = out.substr(0, width > 1 ? width - 1 : 0) + "~";
  return out + std::string(width - out.size(), ' ');
}

class Page {
 public:
  explicit Page(const TopSize& size) : size_(size) {}
  void line(const std::string& text, const char* style = "") {
    if (lines_ >= size_.rows) return;
    const std::string cut = text.substr(0, static_cast<std::size_t>(std::max(1, size_.columns)));
    const bool styled = size_.colour && *style != 0 && !cut.empty();
    out_ += (lines_++ > 0 ? "\n" : "") + (styled ? std::string("\x1b[") + style + "m" + cut + "\x1b[0m" : cut);
  }
  int left() const { return size_.rows - lines_; }
  std::string take() { return std::move(out_) + "\n"; }

 private:
  const TopSize& size_;
  int lines_ = 0;
  std::string out_;
};

constexpr const char *kBold = "1", *kDim = "2", *kRed = "31", *kReverse = "7";

}  // namespace

double histogram_quantile(const std::vector<std::pair<double, double>>& buckets, double share) {
  if (buckets.empty() || buckets.back().second <= 0) return -1;
  const double wanted = share * buckets.back().second;
  double lower = 0, below = 0;
  for (const auto& [bound, count] : buckets) {
    if (count >= wanted && count > below) {
      if (std::isinf(bound)) return lower;  // all that is known
      return lower + (bound - lower) * (wanted - below) / (count - below);
    }
    lower = bound;
    below = count;
  }
  return lower;
}

std::string top_page(const TopSnapshot& before, const TopSnapshot& now, const std::string& url, const TopSize& size) {
  const Reader read(before, now);
  Page page(size);
  const auto columns = static_cast<std::size_t>(std::max(1, size.columns));
  std::string version;
  for (const Labels& labels : read.series("tailor_build_info"))
    version = labels.count("version") != 0 ? labels.at("version") : "";
  const double unix_now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const double began = read.gauge("process_start_time_seconds");
  const std::string state = read.gauge("tailor_draining") > 0  ? "draining"
                            : read.gauge("tailor_loading") > 0 ? "loading"
                            : began > 0                        ? "up " + shown_age(std::max(0.0, unix_now - began))
                                                               : "";
  page.line(cell(fmt::format("tailor {}  {}  {}", version, url, state), columns), kBold);
  const double errors = read.grown("tailor_http_requests_total", {{"status", "5xx"}}),
               refused = read.grown("tailor_requests_refused_total");
  page.line(fmt::format("{}: {:.1f} requests/s  failed {}  refused {}  4xx {}  client left {}",
                        read.since_start() ? "since start" : fmt::format("last {:.0f} s", read.seconds()),
                        read.rate("tailor_http_requests_total"), shown_count(errors), shown_count(refused),
                        shown_count(read.grown("tailor_http_requests_total", {{"status", "4xx"}})),
                        shown_count(read.grown("tailor_http_requests_total", {{"status", "499"}}))),
            errors > 0 ? kRed : "");
  page.line(fmt::format("process: cpu {:.0f} %  memory {}  threads {:.0f}  connections {:.0f}  files {:.0f} of {}",
                        100 * read.rate("process_cpu_seconds_total"),
                        shown_bytes(read.gauge("process_resident_memory_bytes")), read.gauge("process_threads"),
                        read.gauge("tailor_http_connections"), read.gauge("process_open_fds"),
                        shown_count(read.gauge("process_max_fds"))));
  page.line("");
  const std::size_t name_width = std::clamp<std::size_t>(columns > 64 ? columns - 64 : 12, 12, 40);
  const std::vector<Labels> engines = read.series("tailor_requests_running");
  if (!engines.empty()) {
    page.line(cell(fmt::format("{}{:>4} {:>5} {:>11} {:>10}  {:<8} {:>6} {:>6}", cell("ENGINE", name_width), "RUN",
                               "WAIT", "ANSWER t/s", "PROMPT t/s", "CACHE", "USED", "HITS"),
                   columns),
              kReverse);
    for (const Labels& engine : engines) {
      const double used = read.gauge("tailor_kv_cache_usage_ratio", engine),
                   looked = read.grown("tailor_prefix_cache_queries_total", engine);
      const std::string hits =
          looked > 0 ? fmt::format("{:.0f} %", 100 * read.grown("tailor_prefix_cache_hits_total", engine) / looked)
                     : "-";
      page.line(fmt::format("{}{:>4.0f} {:>5.0f} {:>11.1f} {:>10.1f}  {} {:>4.0f} % {:>6}",
                            cell(engine.count("model") != 0 ? engine.at("model") : "", name_width),
                            read.gauge("tailor_requests_running", engine),
                            read.gauge("tailor_requests_waiting", engine),
                            read.rate("tailor_generation_tokens_total", engine),
                            read.rate("tailor_prompt_tokens_total", engine), bar(used, 8), 100 * used, hits));
    }
    page.line("");
  }
  // First token, between tokens, the whole.
  page.line(cell(fmt::format("{} {:>6} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9}", cell("MODEL", name_width), "REQ/S", "FAIL",
                             "TTFT p50", "TTFT p95", "TOKEN p50", "WHOLE p50", "WHOLE p95"),
                 columns),
            kReverse);
  const std::vector<Labels> models = read.series("tailor_model_info");
  std::size_t shown = 0;
  for (const Labels& info : models) {
    if (page.left() < 2 && shown + 1 < models.size()) break;
    ++shown;
    const Labels model{{"model", info.count("model") != 0 ? info.at("model") : ""}};
    Labels failed = model;
    failed["status"] = "5xx";
    const double failures = read.grown("tailor_requests_total", failed);
    const bool writes = info.count("answers") != 0 && info.at("answers") == "text";
    const char* whole = writes ? "tailor_request_seconds" : "tailor_batched_request_seconds";
    const auto time = [&](const char* family, double share) {
      return shown_seconds(read.quantile(family, model, share));
    };
    const std::string parent = info.count("parent") != 0 ? info.at("parent") : "";
    page.line(
        fmt::format("{} {:>6.1f} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9}",
                    cell((parent.empty() ? "" : " + ") + model.at("model"), name_width),
                    read.rate("tailor_requests_total", model), shown_count(failures),
                    time("tailor_time_to_first_token_seconds", .5), time("tailor_time_to_first_token_seconds", .95),
                    time("tailor_time_per_output_token_seconds", .5), time(whole, .5), time(whole, .95)),
        failures > 0 ? kRed : "");
  }
  if (shown < models.size()) page.line(fmt::format("and {} more", models.size() - shown), kDim);
  return page.take();
}

}  // namespace tailor
