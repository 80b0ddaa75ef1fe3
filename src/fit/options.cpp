#include "fit/options.h"

namespace tailor {
namespace {

/// One place names every field for writing and reading (see STYLE: one function visits the fields).
template <typename Visitor, typename Options>
void visit(Visitor&& v, Options& o) {
  v("data", o.data);
  v("validation_file", o.validation_file);
  v("test_file", o.test_file);
  v("text_columns", o.text_columns);
  v("text_template", o.text_template);
  v("label_column", o.label_column);
  v("encoding", o.encoding);
  v("delimiter", o.delimiter);
  v("max_text_bytes", o.max_text_bytes);
  v("validation_fraction", o.validation_fraction);
  v("test_fraction", o.test_fraction);
  v("models", o.models);
  v("methods", o.methods);
  v("budget_seconds", o.budget_seconds);
  v("seed", o.seed);
  v("threads", o.threads);
  v("memory_cap_bytes", o.memory_cap_bytes);
  v("metric", o.metric);
  v("tie_margin", o.tie_margin);
  v("max_latency_ms", o.max_latency_ms);
  v("max_size_bytes", o.max_size_bytes);
  v("max_memory_bytes", o.max_memory_bytes);
  v("price_per_hour", o.price_per_hour);
  v("requests_per_day", o.requests_per_day);
  v("out_of_scope_label", o.out_of_scope_label);
  v("min_confidence", o.min_confidence);
  v("answers", o.answers);
  v("no_texts", o.no_texts);
}

struct Writer {
  Json& json;
  void operator()(const char* key, const std::filesystem::path& value) const { json[key] = value.string(); }
  void operator()(const char* key, char value) const { json[key] = value == 0 ? std::string() : std::string(1, value); }
  template <typename T>
  void operator()(const char* key, const T& value) const {
    json[key] = value;
  }
};

struct Reader {
  const Json& json;
  void operator()(const char* key, std::filesystem::path& value) const {
    if (json.contains(key)) value = json[key].get<std::string>();
  }
  void operator()(const char* key, char& value) const {
    if (json.contains(key)) {
      const auto text = json[key].get<std::string>();
      value = text.empty() ? '\0' : text[0];
    }
  }
  template <typename T>
  void operator()(const char* key, T& value) const {
    if (json.contains(key)) value = json[key].get<T>();
  }
};

/// Files were named from the directory in which the run began, which need not be this one.
void find_files(FitOptions& options, const std::filesystem::path& began_in) {
  const auto find = [&](const std::filesystem::path& file) {
    std::error_code ignored;
    const bool there = !file.empty() && file.is_relative() && std::filesystem::exists(began_in / file, ignored);
    return there ? began_in / file : file;
  };
  options.data = find(options.data);
  options.validation_file = find(options.validation_file);
  options.test_file = find(options.test_file);
  for (auto& model : options.models) model = find(model).string();
  constexpr std::string_view kCost = "cost:";
  if (options.metric.starts_with(kCost))
    options.metric = std::string(kCost) + find(options.metric.substr(kCost.size())).string();
}

}  // namespace

Json to_json(const FitOptions& options) {
  Json json = Json::object();
  visit(Writer{json}, options);
  return json;
}

Result<FitOptions> fit_options_of_run(const Json& run) {
  FitOptions options;
  try {
    visit(Reader{run.at("options")}, options);
    find_files(options, run.value("directory", std::string()));
  } catch (const Json::exception& error) {
    return Error{ErrorCode::kCorruptData, std::string("options of the run: ") + error.what(),
                 "the run directory was changed; start a new run"};
  }
  return options;
}

}  // namespace tailor
