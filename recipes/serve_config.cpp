#include "recipes/serve_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "config/value.h"
#include "config/yaml.h"
#include "core/files.h"
#include "serve/origin_policy.h"
#include "text/edit_distance.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

/// What comes later; a name that is accepted and does nothing would look like protection.
constexpr std::string_view kNotBuilt[] = {"routes", "providers", "guards", "guard",    "drift",
                                          "widget", "cluster",   "rag",    "retrieval"};

class Reader {
 public:
  explicit Reader(const fs::path& file) : where_(file.string()), directory_(file.parent_path()) {}

  using Field = std::function<void(const YamlEntry&)>;
  using Fields = std::vector<std::pair<std::string, Field>>;

  /// Reads a map by the table of its fields; the first error is kept.
  void map(const YamlNode& node, const std::string& path, const Fields& fields) {
    if (node.kind == YamlNode::Kind::kNull) return;
    if (node.kind != YamlNode::Kind::kMap) return wrong(node.line, path, "settings (name: value)", node);
    std::map<std::string, int> seen;
    for (const YamlEntry& entry : node.entries) {
      if (error_) return;
      const std::string full = path.empty() ? entry.name : path + "." + entry.name;
      if (const auto [before, first] = seen.emplace(entry.name, entry.line); !first)
        return fail(entry.line, fmt::format("{} is given twice, first in line {}", full, before->second),
                    "keep one of them");
      const auto field =
          std::find_if(fields.begin(), fields.end(), [&](const auto& f) { return f.first == entry.name; });
      if (field == fields.end()) return unknown(entry, full, fields);
      if (entry.value.kind != YamlNode::Kind::kNull) field->second(entry);
    }
  }

  Field text(std::string& out) {
    return [this, &out](const YamlEntry& entry) {
      if (entry.value.kind != YamlNode::Kind::kScalar || entry.value.text.empty())
        return wrong(entry.line, entry.name, "a text", entry.value);
      out = entry.value.text;
    };
  }
  Field path(fs::path& out) {
    return [this, &out](const YamlEntry& entry) {
      if (entry.value.kind != YamlNode::Kind::kScalar || entry.value.text.empty())
        return wrong(entry.line, entry.name, "a path", entry.value);
      out = resolved(entry.value.text);
    };
  }
  Field flag(bool& out) {
    return [this, &out](const YamlEntry& entry) {
      const auto value = plain_flag(entry.value);
      if (!value) return wrong(entry.line, entry.name, "true or false", entry.value);
      out = *value;
    };
  }
  template <typename T>
  Field whole(T& out, double least, double most = 1e9) {
    return [this, &out, least, most](const YamlEntry& entry) {
      const auto value = plain_number(entry.value);
      if (!value || *value != std::floor(*value) || *value < least || *value > most)
        return wrong(entry.line, entry.name, fmt::format("a whole number from {} to {}", least, most), entry.value);
      out = static_cast<T>(*value);
    };
  }
  Field share(double& out) {
    return [this, &out](const YamlEntry& entry) {
      const auto value = plain_number(entry.value);
      if (!value || *value < 0 || *value > 1) return wrong(entry.line, entry.name, "a number from 0 to 1", entry.value);
      out = *value;
    };
  }
  /// One of a few words, each with what it means.
  template <typename T>
  Field word(T& out, std::vector<std::pair<std::string, T>> words) {
    return [this, &out, words = std::move(words)](const YamlEntry& entry) {
      std::string known;
      for (const auto& [name, value] : words) {
        if (entry.value.kind == YamlNode::Kind::kScalar && entry.value.text == name) {
          out = value;
          return;
        }
        known += (known.empty() ? "" : ", ") + name;
      }
      wrong(entry.line, entry.name, words.size() > 1 ? "one of " + known : known, entry.value);
    };
  }
  template <typename T>
  Field bytes(T& out) {
    return [this, &out](const YamlEntry& entry) {
      const auto value = quantity(entry.value, {{"", 1},
                                                {"b", 1},
                                                {"kb", 1e3},
                                                {"mb", 1e6},
                                                {"gb", 1e9},
                                                {"kib", 1024.0},
                                                {"mib", 1048576.0},
                                                {"gib", 1073741824.0}});
      if (!value || *value < 1 || *value > 1e15)
        return wrong(entry.line, entry.name, "a size such as 2GB", entry.value);
      out = static_cast<T>(*value);
    };
  }
  template <typename T>
  Field time(T& out, int most_days = 1) {
    return [this, &out, most_days](const YamlEntry& entry) {
      const auto seconds = quantity(entry.value, {{"ms", 0.001}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86'400}});
      const auto value = std::chrono::duration_cast<T>(std::chrono::duration<double>(seconds.value_or(0)));
      if (!seconds || value.count() < 1 || *seconds > 86'400.0 * most_days)
        return wrong(entry.line, entry.name,
                     most_days == 1 ? "a time up to a day with its unit, such as 30s or 10m"
                                    : "a time with its unit, such as 12h or 30d",
                     entry.value);
      out = value;
    };
  }

  void fail(int line, std::string message, std::string hint) {
    if (!error_)
      error_ = Error{ErrorCode::kInvalidArgument, fmt::format("{}:{}: {}", where_, std::max(line, 1), message),
                     std::move(hint)};
  }
  void wrong(int line, std::string_view name, std::string_view expected, const YamlNode& seen) {
    fail(line, fmt::format("{} should be {}, it is {}", name.empty() ? "the file" : name, expected, seen_of(seen)),
         "docs/SERVE.md shows a file");
  }
  std::string at(int line) const { return fmt::format("{}:{}", where_, line); }
  fs::path resolved(const fs::path& path) const { return path.is_absolute() ? path : directory_ / path; }
  const std::optional<Error>& error() const { return error_; }

 private:
  void unknown(const YamlEntry& entry, const std::string& full, const Fields& fields) {
    if (full == entry.name && std::find(std::begin(kNotBuilt), std::end(kNotBuilt), full) != std::end(kNotBuilt))
      return fail(entry.line, fmt::format("{} is not built yet", full), "leave it out: nothing would be done about it");
    std::vector<std::string> names;
    std::string known;
    for (const auto& [name, field] : fields) {
      names.push_back(name);
      known += (known.empty() ? "" : ", ") + name;
    }
    const std::string nearest = nearest_name(entry.name, names);
    fail(entry.line, fmt::format("there is no setting {}", full),
         nearest.empty() ? "known here: " + known : fmt::format("did you mean {}?", nearest));
  }
  static std::optional<double> quantity(const YamlNode& node,
                                        const std::vector<std::pair<std::string_view, double>>& units) {
    if (node.kind != YamlNode::Kind::kScalar) return {};
    const std::size_t end = node.text.find_first_not_of("0123456789.");
    YamlNode number = node;
    number.quoted = false;
    number.text = node.text.substr(0, end);
    const auto value = plain_number(number);
    std::string unit = end == std::string::npos ? "" : node.text.substr(node.text.find_first_not_of(' ', end));
    std::transform(unit.begin(), unit.end(), unit.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    for (const auto& [name, factor] : units) {
      if (value && unit == name) return *value * factor;
    }
    return {};
  }

  std::string where_;
  fs::path directory_;
  std::optional<Error> error_;
};

void read_adapters(Reader& in, const YamlEntry& entry, ServeModel& model) {
  if (entry.value.kind != YamlNode::Kind::kList)
    return in.wrong(entry.line, "adapters", "a list of {name, path}", entry.value);
  for (const YamlNode& item : entry.value.items) {
    ServeAdapter adapter;
    in.map(item, "adapters", {{"name", in.text(adapter.name)}, {"path", in.path(adapter.path)}});
    if (adapter.name.empty() || adapter.path.empty())
      return in.fail(item.line, "an adapter needs name and path", "- {name: polite, path: runs/polite/package}");
    model.adapters.push_back(std::move(adapter));
  }
}

void read_models(Reader& in, const YamlEntry& entry, ServeRequest& out) {
  if (entry.value.kind != YamlNode::Kind::kList) return in.wrong(entry.line, "models", "a list", entry.value);
  for (const YamlNode& item : entry.value.items) {
    ServeModel model;
    model.where = in.at(item.line);
    in.map(item, "models",
           {{"name", in.text(model.name)},
            {"model", in.text(model.model)},
            {"package", in.path(model.package)},
            {"stored", in.text(model.stored)},
            {"adapters", [&](const YamlEntry& e) { read_adapters(in, e, model); }}});
    if (in.error()) return;
    if (static_cast<int>(!model.model.empty()) + static_cast<int>(!model.package.empty()) +
            static_cast<int>(!model.stored.empty()) !=
        1)
      return in.fail(item.line, "a model is one of model, package and stored",
                     "- {name: support, package: runs/support/package}");
    if (model.model.empty() && !model.adapters.empty())
      return in.fail(item.line, "adapters stand on a base model",
                     "name it with model; a package brings its own adapter");
    std::error_code ignored;
    if (!model.model.empty() && fs::exists(in.resolved(model.model), ignored))
      model.model = in.resolved(model.model).string();
    out.served.push_back(std::move(model));
  }
}

void read_listen(Reader& in, const YamlEntry& entry, ServeRequest& out) {
  out.listen.clear();
  const bool one = entry.value.kind == YamlNode::Kind::kScalar;
  for (const YamlNode& item : one ? std::vector<YamlNode>{entry.value} : entry.value.items) {
    if (item.kind != YamlNode::Kind::kScalar) break;
    const auto endpoint = parse_endpoint(item.text);
    if (!endpoint) return in.fail(item.line, endpoint.error().message, endpoint.error().hint);
    out.listen.push_back(item.text);
  }
  if (out.listen.empty())
    in.wrong(entry.line, "listen", "an address such as 127.0.0.1:8080, or a list of them", entry.value);
}

void read_origins(Reader& in, const YamlEntry& entry, ServeRequest& out) {
  const bool one = entry.value.kind == YamlNode::Kind::kScalar;
  for (const YamlNode& item : one ? std::vector<YamlNode>{entry.value} : entry.value.items) {
    const auto origin = parse_origin(item.text);
    if (!origin) return in.fail(item.line, "allowed_origins: " + origin.error().message, origin.error().hint);
    out.allowed_origins.push_back(*origin);
  }
  if (out.allowed_origins.empty())
    in.wrong(entry.line, "allowed_origins", "an origin such as https://shop.example, or a list of them", entry.value);
}

void read_tls(Reader& in, const YamlEntry& entry, ServeRequest& out) {
  for (const YamlEntry& setting : entry.value.entries) {
    // Mostly a template whose variable was not set: no wish for plain HTTP.
    if (setting.value.kind == YamlNode::Kind::kNull)
      return in.wrong(setting.line, "tls." + setting.name, "given or left out", setting.value);
  }
  in.map(entry.value, "tls",
         {{"certificate", in.path(out.tls_certificate)},
          {"key", in.path(out.tls_key)},
          {"client_ca", in.path(out.tls_client_ca)},
          {"hsts_days", in.whole(out.hsts_days, 1, 3650)}});
}

void read_traces(Reader& in, const YamlEntry& entry, ServeRequest& out) {
  TraceOptions& traces = out.traces.emplace();
  in.map(entry.value, "traces",
         {{"endpoint", in.text(traces.endpoint)},
          {"ratio", in.share(traces.ratio)},
          {"service_name", in.text(traces.service_name)}});
  const std::string& url = traces.endpoint;
  if (!url.empty() && !url.starts_with("http://") && !url.starts_with("https://"))
    in.wrong(entry.line, "traces.endpoint", "an http or https URL such as http://127.0.0.1:4318",
             YamlNode{.kind = YamlNode::Kind::kScalar, .text = url});
}

}  // namespace

Result<ServeRequest> parse_serve_config(std::string_view text, const fs::path& file) {
  TAILOR_TRY(const YamlNode root, parse_yaml(text, file.string()));
  ServeRequest out;
  Reader in(file);
  const auto section = [&](const std::string& name, Reader::Fields fields) {
    return std::pair<std::string, Reader::Field>{
        name, [&in, name, fields = std::move(fields)](const YamlEntry& e) { in.map(e.value, name, fields); }};
  };
  ApiLimits& limits = out.limits;
  HttpTimeouts& times = out.timeouts;
  in.map(root, "",
         {{"listen", [&](const YamlEntry& e) { read_listen(in, e, out); }},
          {"tls", [&](const YamlEntry& e) { read_tls(in, e, out); }},
          {"allowed_origins", [&](const YamlEntry& e) { read_origins(in, e, out); }},
          {"data", in.path(out.data)},
          {"threads", in.whole(out.threads, 1, 4096)},
          {"cache_bytes", in.bytes(out.cache_bytes)},
          {"max_context", in.whole(out.max_context, 16)},
          {"models", [&](const YamlEntry& e) { read_models(in, e, out); }},
          {"adapters_root", in.path(out.adapters_root)},
          {"nearest_rows", in.flag(out.nearest_rows)},
          section("keys", {{"file", in.path(out.keys_file)}, {"required", in.flag(out.keys_required)}}),
          section("limits", {{"body_bytes", in.bytes(limits.body_bytes)},
                             {"choices", in.whole(limits.choices, 1, 1024)},
                             {"prompts", in.whole(limits.prompts, 1, 65'536)},
                             {"texts", in.whole(limits.texts, 1, 65'536)},
                             {"read_bytes", in.bytes(limits.read_bytes)},
                             {"messages", in.whole(limits.messages, 1, 65'536)},
                             {"batches", in.whole(limits.batches, 1, 1e6)},
                             {"jobs", in.whole(limits.jobs, 1, 1e6)},
                             {"stored_bytes", in.bytes(limits.stored_bytes)},
                             {"waiting_requests", in.whole(out.queue.requests, 1)},
                             {"waiting_tokens", in.whole(out.queue.tokens, 1, 1e12)},
                             {"waiting_time", in.time(out.queue.waiting_time)},
                             {"connections", in.whole(out.http_limits.connections, 1, 1e6)},
                             {"connections_per_address", in.whole(out.http_limits.connections_per_address, 1, 1e6)}}),
          section("timeouts", {{"request", in.time(limits.request_timeout)},
                               {"drain", in.time(out.drain_timeout)},
                               {"header", in.time(times.header)},
                               {"idle", in.time(times.idle)},
                               {"body", in.time(times.body)},
                               {"write", in.time(times.write)}}),
          section("log", {{"level", in.word(out.request_log_options.least, {{"debug", LogLevel::kDebug},
                                                                            {"info", LogLevel::kInfo},
                                                                            {"warning", LogLevel::kWarning}})},
                          {"file", in.path(out.log.file)},
                          {"max_bytes", in.bytes(out.log.max_bytes)},
                          {"max_age", in.time(out.log.max_age, 3650)},
                          {"requests", in.flag(out.log_requests)},
                          {"addresses", in.flag(out.request_log_options.addresses)}}),
          section("metrics", {{"compat", in.word(out.vllm_metrics, {{"vllm", true}})}}),
          {"traces", [&](const YamlEntry& e) { read_traces(in, e, out); }}});
  if (in.error()) return *in.error();
  return out;
}

Result<ServeRequest> read_serve_config(const fs::path& file) {
  TAILOR_TRY(const std::string text, read_file(file, kMaxYamlBytes));
  return parse_serve_config(text, file);
}

}  // namespace tailor
