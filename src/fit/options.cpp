#include "fit/options.h"

namespace tailor {
namespace {

/// One place names every field for writing and reading (see STYLE: one function visits the fields).
template <typename Visitor, typename Options>
void visit_data(Visitor&& v, Options& o) {
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
  v("seed", o.seed);
}

template <typename Visitor, typename Options>
void visit_fit(Visitor&& v, Options& o) {
  visit_data(v, o);
  v("models", o.models);
  v("methods", o.methods);
  v("budget_seconds", o.budget_seconds);
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

template <typename Visitor, typename Options>
void visit_tune(Visitor&& v, Options& o) {
  visit_data(v, o);
  v("method", o.method);
  v("task", o.task);
  v("label_separator", o.label_separator);
  v("export_hugging_face", o.export_hugging_face);
  v("model", o.model);
  v("settings", o.settings);
  v("job", o.job);
  v("metric", o.metric);
  v("patience", o.patience);
  v("head_start", o.head_start);
  v("label_names", o.label_names);
  v("refit", o.refit);
  v("quantize", o.quantize);
  v("adapter", o.adapter);
  v("added_tokens", o.added_tokens);
  v("init_text", o.init_text);
  v("teacher", o.teacher);
  v("unlabelled_file", o.unlabelled_file);
  v("teacher_tokens", o.teacher_tokens);
  v("max_tokens", o.max_tokens);
  v("template_variables", o.template_variables);
  v("template_date", o.template_date);
  v("answers", o.answers);
  v("threads", o.threads);
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
class FileFinder {
 public:
  explicit FileFinder(std::filesystem::path began_in) : began_in_(std::move(began_in)) {}

  std::filesystem::path operator()(const std::filesystem::path& file) const {
    std::error_code ignored;
    const bool there = !file.empty() && file.is_relative() && std::filesystem::exists(began_in_ / file, ignored);
    return there ? began_in_ / file : file;
  }
  void find(DataOptions& options) const {
    options.data = (*this)(options.data);
    options.validation_file = (*this)(options.validation_file);
    options.test_file = (*this)(options.test_file);
  }

 private:
  std::filesystem::path began_in_;
};

template <typename Read>
Status read_options(const Json& run, const Read& read) {
  try {
    read(Reader{run.at("options")}, FileFinder(run.value("directory", std::string())));
  } catch (const Json::exception& error) {
    return Error{ErrorCode::kCorruptData, std::string("options of the run: ") + error.what(),
                 "the run directory was changed; start a new run"};
  }
  return {};
}

}  // namespace

Json to_json(const FitOptions& options) {
  Json json = Json::object();
  visit_fit(Writer{json}, options);
  return json;
}

Json to_json(const TuneOptions& options) {
  Json json = Json::object();
  visit_tune(Writer{json}, options);
  return json;
}

Result<FitOptions> fit_options_of_run(const Json& run) {
  FitOptions options;
  TAILOR_CHECK(read_options(run, [&](const Reader& reader, const FileFinder& find) {
    visit_fit(reader, options);
    find.find(options);
    for (auto& model : options.models) model = find(model).string();
    constexpr std::string_view kCost = "cost:";
    if (options.metric.starts_with(kCost))
      options.metric = std::string(kCost) + find(options.metric.substr(kCost.size())).string();
  }));
  return options;
}

Result<TuneOptions> tune_options_of_run(const Json& run) {
  TuneOptions options;
  TAILOR_CHECK(read_options(run, [&](const Reader& reader, const FileFinder& find) {
    visit_tune(reader, options);
    find.find(options);
    options.model = find(options.model).string();
    options.teacher = find(options.teacher);
    options.adapter = find(options.adapter);
    options.unlabelled_file = find(options.unlabelled_file);
  }));
  return options;
}

}  // namespace tailor
