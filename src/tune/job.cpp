#include "tune/job.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <string_view>

#include "core/json.h"
#include "tune/adapter_start.h"
#include "tune/methods.h"

namespace tailor::tune {
namespace {

template <typename E>
using Names = std::vector<std::pair<E, const char*>>;

const Names<Task> kTasks = {{Task::kSequenceClassification, "sequence-classification"},
                            {Task::kCausalLmLabels, "causal-lm-labels"},
                            {Task::kCausalLm, "causal-lm"},
                            {Task::kRegression, "regression"},
                            {Task::kMultiLabel, "multi-label"},
                            {Task::kTokenClassification, "token-classification"},
                            {Task::kSpanExtraction, "span-extraction"}};
const Names<Schedule> kSchedules = {
    {Schedule::kLinear, "linear"}, {Schedule::kCosine, "cosine"}, {Schedule::kConstant, "constant"}};
const Names<Pooling> kPoolings = {{Pooling::kMean, "mean"}, {Pooling::kCls, "cls"}};
const Names<Dtype> kDtypes = {{Dtype::kF32, "f32"}, {Dtype::kBf16, "bf16"}};
const Names<Device> kDevices = {{Device::kCpu, "cpu"}, {Device::kCuda, "cuda"}};
const Names<Kernels> kKernels = {{Kernels::kNative, "native"}, {Kernels::kPortable, "portable"}};
const Names<SoftPromptEncoder> kSoftEncoders = {{SoftPromptEncoder::kMlp, "mlp"}, {SoftPromptEncoder::kLstm, "lstm"}};
const Names<SoftPromptInit> kSoftInits = {{SoftPromptInit::kLabels, "labels"},
                                          {SoftPromptInit::kVocabulary, "vocabulary"},
                                          {SoftPromptInit::kRandom, "random"}};
const Names<Metric> kMetrics = {{Metric::kAccuracy, "accuracy"},
                                {Metric::kMacroF1, "macro_f1"},
                                {Metric::kLoss, "loss"},
                                {Metric::kMicroF1, "micro_f1"},
                                {Metric::kEntityF1, "entity_f1"}};

template <typename E>
const char* name_of(const Names<E>& names, E value) {
  for (const auto& [known, name] : names) {
    if (known == value) return name;
  }
  return "";
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t up = row[j];
      row[j] = std::min({up + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = up;
    }
  }
  return row[b.size()];
}

/// Reads one JSON object by a table of keys; the first error stops it.
class ObjectReader {
 public:
  explicit ObjectReader(std::string where) : where_(std::move(where)) {}

  void number(const char* key, double& to, double low, double high, bool open_low = false, bool open_high = false) {
    fields_[key] = [=, this, &to](const Json& v) -> Status {
      const double x = v.is_number() ? v.get<double>() : std::numeric_limits<double>::quiet_NaN();
      if (!(x >= low && x <= high) || (open_low && x == low) || (open_high && x == high)) {
        return bad(
            key, fmt::format("a number in {}{:g}, {:g}{}", open_low ? "(" : "[", low, high, open_high ? ")" : "]"), v);
      }
      to = x;
      return {};
    };
  }
  template <typename T>
  void whole(const char* key, T& to, std::int64_t low, std::int64_t high = std::numeric_limits<std::int32_t>::max()) {
    fields_[key] = [=, this, &to](const Json& v) -> Status {
      if (!v.is_number_integer() || v.get<std::int64_t>() < low || v.get<std::int64_t>() > high) {
        return bad(key, fmt::format("a whole number from {} to {}", low, high), v);
      }
      to = static_cast<T>(v.get<std::int64_t>());
      return {};
    };
  }
  void flag(const char* key, bool& to) {
    fields_[key] = [=, this, &to](const Json& v) -> Status {
      if (!v.is_boolean()) return bad(key, "true or false", v);
      to = v.get<bool>();
      return {};
    };
  }
  void text(const char* key, const std::function<void(const std::string&)>& set) {
    fields_[key] = [=, this](const Json& v) -> Status {
      if (!v.is_string() || v.get<std::string>().empty()) return bad(key, "a text", v);
      set(v.get<std::string>());
      return {};
    };
  }
  template <typename E>
  void choice(const char* key, E& to, const Names<E>& names) {
    fields_[key] = [=, this, &to](const Json& v) -> Status {
      std::vector<const char*> known;
      for (const auto& [value, name] : names) {
        known.push_back(name);
        if (v.is_string() && v.get<std::string>() == name) {
          to = value;
          return {};
        }
      }
      return bad(key, fmt::format("one of {}", fmt::join(known, ", ")), v);
    };
  }
  void custom(const char* key, std::function<Status(const Json&)> read) { fields_[key] = std::move(read); }

  Status read(const Json& object) const {
    if (!object.is_object()) return Error{ErrorCode::kInvalidArgument, where_ + " should be a JSON object", ""};
    for (const auto& [key, value] : object.items()) {
      const auto field = fields_.find(key);
      if (field == fields_.end()) return unknown(key);
      TAILOR_CHECK(field->second(value));
    }
    return {};
  }
  Error bad(const std::string& key, const std::string& expected, const Json& seen) const {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{}: {} should be {}, it is {}", where_, key, expected, dump_json(seen).substr(0, 80)), ""};
  }

 private:
  Error unknown(const std::string& key) const {
    std::string nearest;
    std::size_t best = std::max<std::size_t>(3, key.size() / 2);
    for (const auto& [name, unused] : fields_) {
      const std::size_t distance = edit_distance(key, name);
      if (distance < best) {
        best = distance;
        nearest = name;
      }
    }
    return {ErrorCode::kInvalidArgument, fmt::format("{}: unknown key '{}'", where_, key),
            nearest.empty() ? "docs/TUNE_JOB.md lists the keys" : fmt::format("did you mean '{}'?", nearest)};
  }
  std::string where_;
  std::map<std::string, std::function<Status(const Json&)>> fields_;
};

Status read_lora(const Json& value, const std::string& where, LoraSettings& lora) {
  ObjectReader reader(where + " settings.lora");
  reader.whole("r", lora.r, 1, 65536);
  reader.number("alpha", lora.alpha, 0, 1e6, true);
  reader.number("dropout", lora.dropout, 0, 1, false, true);
  reader.flag("rslora", lora.rslora);
  reader.flag("dora", lora.dora);
  reader.flag("pissa", lora.pissa);
  reader.number("b_rate_scale", lora.b_rate_scale, 0, 1e4, true);
  const auto names_of = [&](const char* key, const Json& v, std::vector<std::string>& names) -> Status {
    names.clear();
    if (!v.is_string() && !v.is_array()) return reader.bad(key, "a name or a list of names", v);
    if (v.is_string()) names.push_back(v.get<std::string>());
    if (v.is_array()) {
      for (const Json& name : v) {
        if (!name.is_string()) return reader.bad(key, "a list of module names", v);
        names.push_back(name.get<std::string>());
      }
    }
    return {};
  };
  reader.custom("modules_to_save",
                [&](const Json& v) -> Status { return names_of("modules_to_save", v, lora.modules_to_save); });
  reader.custom("target_modules", [&](const Json& v) -> Status {
    std::vector<std::string> names;
    TAILOR_CHECK(names_of("target_modules", v, names));
    if (names.empty())
      return reader.bad("target_modules", "\"all-linear\" or a list of module names that is not empty", v);
    lora.target_modules = std::move(names);
    return {};
  });
  reader.custom("trained_tokens", [&](const Json& v) -> Status {
    const auto whole = [](const Json& id) { return id.is_number_integer() && id.get<std::int64_t>() >= 0; };
    if (!v.is_array() || !std::all_of(v.begin(), v.end(), whole))
      return reader.bad("trained_tokens", "a list of token ids", v);
    lora.trained_tokens = v.get<std::vector<std::int32_t>>();
    std::vector<std::int32_t> sorted = lora.trained_tokens;
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
      return reader.bad("trained_tokens", "a list with each token once", v);
    return {};
  });
  return reader.read(value);
}

Status read_settings(const Json& value, const std::string& where, Settings& s) {
  ObjectReader reader(where + " settings");
  reader.number("learning_rate", s.learning_rate, 0, 1e3, true);
  reader.number("head_learning_rate", s.head_learning_rate, 0, 1e3);
  reader.number("epochs", s.epochs, 0, 1e6, true);
  reader.whole("max_steps", s.max_steps, 0, 1'000'000'000);
  reader.whole("batch_size", s.batch_size, 1, 1'000'000);
  reader.whole("micro_batch_tokens", s.micro_batch_tokens, 1, 1'000'000'000);
  reader.number("weight_decay", s.weight_decay, 0, 1);
  reader.number("warmup_ratio", s.warmup_ratio, 0, 1, false, true);
  reader.choice("schedule", s.schedule, kSchedules);
  reader.number("beta1", s.beta1, 0, 1, false, true);
  reader.number("beta2", s.beta2, 0, 1, false, true);
  reader.number("epsilon", s.epsilon, 0, 1, true);
  reader.number("dropout", s.dropout, 0, 1, false, true);
  reader.number("hidden_dropout", s.hidden_dropout, 0, 1, false, true);
  reader.number("label_smoothing", s.label_smoothing, 0, 1, false, true);
  reader.number("max_grad_norm", s.max_grad_norm, 0, 1e9);
  reader.number("ema_decay", s.ema_decay, 0, 1, false, true);
  reader.number("head_init_std", s.head_init_std, 0, 10);
  reader.choice("pooling", s.pooling, kPoolings);
  reader.custom("lora", [&](const Json& v) { return read_lora(v, where, s.lora); });
  reader.custom("adapter", [&](const Json& v) {
    ObjectReader adapter(where + " settings.adapter");
    adapter.whole("size", s.adapter.size, 1, 65536);
    adapter.number("scale", s.adapter.scale, 0, 1e4, true);
    return adapter.read(v);
  });
  reader.custom("soft_prompt", [&](const Json& v) {
    ObjectReader prompt(where + " settings.soft_prompt");
    prompt.whole("tokens", s.soft_prompt.tokens, 1, 4096);
    prompt.whole("hidden", s.soft_prompt.hidden, 0, 65536);
    prompt.choice("encoder", s.soft_prompt.encoder, kSoftEncoders);
    prompt.choice("init", s.soft_prompt.init, kSoftInits);
    prompt.flag("reparameterise", s.soft_prompt.reparameterise);
    prompt.custom("start", [&](const Json& list) -> Status {
      const auto whole = [](const Json& id) { return id.is_number_integer() && id.get<std::int64_t>() >= 0; };
      if (!list.is_array() || !std::all_of(list.begin(), list.end(), whole))
        return prompt.bad("start", "a list of token ids", list);
      s.soft_prompt.start = list.get<std::vector<std::int32_t>>();
      return {};
    });
    return prompt.read(v);
  });
  reader.custom("distill", [&](const Json& v) {
    ObjectReader distill(where + " settings.distill");
    distill.number("temperature", s.distill.temperature, 0, 100, true);
    distill.number("alpha", s.distill.alpha, 0, 1);
    return distill.read(v);
  });
  reader.choice("dtype", s.dtype, kDtypes);
  reader.flag("activation_checkpointing", s.activation_checkpointing);
  reader.whole("upper_layers", s.upper_layers, 1, 1024);
  reader.number("temperature", s.temperature, 0, 100, true);
  reader.whole("hard_negatives", s.hard_negatives, 0, 64);
  return reader.read(value);
}

bool wants_targets(Task task) {
  return task == Task::kRegression || task == Task::kMultiLabel;
}

bool wants_tokens(Task task) {
  return task == Task::kTokenClassification || task == Task::kSpanExtraction;
}

/// By low-rank updates; a decoder that learns from a teacher does too.
bool learns_low_rank(const Job& job, const Method& method) {
  return method.family == MethodFamily::kLora || (job.method == "distill" && !for_encoders(job.task));
}

/// Else the layers are untouched and computed once.
bool trains_layers(const Job& job) {
  return job.method != "head" && job.method != "features";
}

/// Whether the method freezes matrices that it keeps as floats.
bool freezes_matrices(const Job& job) {
  static constexpr std::string_view kNone[] = {"full", "contrastive", "head", "features", "qlora"};
  return std::find(std::begin(kNone), std::end(kNone), job.method) == std::end(kNone) &&
         (job.method != "distill" || !for_encoders(job.task));
}

/// What decides which values are kept: something that the task has.
Status check_metric(const Job& job, const std::string& where) {
  const auto fits = [&] {
    switch (job.metric) {
      case Metric::kLoss:
        return true;
      case Metric::kMicroF1:
        return job.task == Task::kMultiLabel;
      case Metric::kEntityF1:
        return job.task == Task::kTokenClassification;
      default:
        return job.task != Task::kCausalLm && job.task != Task::kRegression &&
               (job.task != Task::kSpanExtraction || job.metric == Metric::kAccuracy);
    }
  };
  if (fits()) return {};
  const bool loss_alone = job.task == Task::kCausalLm || job.task == Task::kRegression;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: the task {} has no metric {}{}", where, to_string(job.task), to_string(job.metric),
                           loss_alone ? ": its metric is loss" : ""),
               "leave \"metric\" out"};
}

/// Settings of a part that the method does not have would change nothing: they are refused.
Status refuse_foreign_settings(const Json& settings, const Job& job, const Method& method, const std::string& where) {
  const bool head = for_encoders(job.task) && (job.method != "contrastive" || !job.head.empty());
  const bool distills = job.method == "distill";
  const bool lora = learns_low_rank(job, method);
  const std::pair<const char*, bool> parts[] = {
      {"lora", lora},
      {"distill", distills && job.task != Task::kCausalLm},
      {"adapter", method.family == MethodFamily::kAdapter},
      {"soft_prompt", method.family == MethodFamily::kSoftPrompt},
      {"upper_layers", job.method == "upper-layers"},
      {"dtype", freezes_matrices(job)},
      {"activation_checkpointing", trains_layers(job)},
      {"temperature", job.method == "contrastive"},
      {"hard_negatives", job.method == "contrastive"},
      {"head_learning_rate", head},
      {"label_smoothing", !wants_targets(job.task) && job.task != Task::kSpanExtraction},
      {"pooling", !wants_tokens(job.task)}};
  for (const auto& [key, used] : parts) {
    if (used || !settings.contains(key)) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: settings.{} means nothing to method {}{}", where, key, job.method,
                             job.task == Task::kSequenceClassification ? ""
                             : for_encoders(job.task)                  ? fmt::format(" for {}", to_string(job.task))
                                                                       : " of a decoder"),
                 "leave it out"};
  }
  if (job.method == "p-tuning" && job.settings.soft_prompt.reparameterise) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: settings.soft_prompt.reparameterise means nothing to p-tuning, which is a network", where),
        "leave it out"};
  }
  if (distills && job.task == Task::kCausalLmLabels && job.settings.lora.dropout > 0) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: settings.lora.dropout is not there for method distill, which scores every row twice", where),
        "leave it out"};
  }
  if (job.settings.dtype == Dtype::kBf16 && job.settings.lora.pissa) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: settings.dtype is bf16, but pissa takes its start out of the base, which has to stay "
                             "exact for that",
                             where),
                 "take dtype f32, or method lora"};
  }
  if (job.settings.lora.dora && job.settings.lora.pissa) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: settings.lora: dora and pissa exclude each other", where), "take one of them"};
  }
  return {};
}

}  // namespace

const char* to_string(Task task) {
  return name_of(kTasks, task);
}
const char* to_string(Metric metric) {
  return name_of(kMetrics, metric);
}
const char* to_string(Dtype dtype) {
  return name_of(kDtypes, dtype);
}
const char* to_string(Device device) {
  return name_of(kDevices, device);
}

Result<Job> read_job(const std::filesystem::path& file) {
  TAILOR_TRY(const Json value, read_json(file));
  return parse_job(value, file.string(), file.parent_path());
}

Result<Job> parse_job(const Json& value, const std::string& where, const std::filesystem::path& directory) {
  if (!value.is_object() || value.value("format", Json()) != "tailor-tune-job" || value.value("version", Json()) != 1) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: expected format \"tailor-tune-job\", version 1", where),
                 "docs/TUNE_JOB.md shows a job"};
  }
  Job job;
  if (value.contains("method") && value["method"].is_string()) job.method = value["method"].get<std::string>();
  const Method* method = find_method(job.method);
  if (method == nullptr) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: unknown method '{}'", where, job.method),
                 fmt::format("known: {}", fmt::join(method_names(), ", "))};
  }
  for (const auto& [task, name] : kTasks) {
    if (value.value("task", Json()) == name) job.task = task;
  }
  if (job.task == Task::kCausalLm || job.task == Task::kRegression) job.metric = Metric::kLoss;
  if (job.task == Task::kMultiLabel) job.metric = Metric::kMicroF1;
  if (job.task == Task::kTokenClassification) job.metric = Metric::kEntityF1;
  method->set_defaults(job.settings, job.task);

  const auto path = [&](std::filesystem::path& to) {
    return [&to, directory](const std::string& text) {
      to = directory / text;  // an absolute text stays as it is
    };
  };
  ObjectReader reader(where);
  reader.text("format", [](const std::string&) {});
  int version = 0;
  reader.whole("version", version, 1, 1);
  reader.choice("task", job.task, kTasks);
  reader.text("method", [](const std::string&) {});
  reader.text("base", path(job.base));
  reader.text("tokens", path(job.tokens));
  reader.text("out", path(job.out));
  reader.text("head", path(job.head));
  reader.text("adapter", path(job.adapter));
  reader.whole("n_labels", job.n_labels, 0);
  reader.custom("settings", [&](const Json& v) { return read_settings(v, where, job.settings); });
  reader.number("evaluate_every_epochs", job.evaluate_every_epochs, 0, 1e6);
  reader.whole("evaluate_every_steps", job.evaluate_every_steps, 0, 1'000'000'000);
  reader.whole("early_stopping_patience", job.early_stopping_patience, 0);
  reader.choice("metric", job.metric, kMetrics);
  reader.whole("seed", job.seed, 0, std::numeric_limits<std::int64_t>::max());
  reader.choice("device", job.device, kDevices);
  reader.choice("kernels", job.kernels, kKernels);
  reader.whole("threads", job.threads, 0, 4096);
  reader.number("deadline_seconds", job.deadline_seconds, 0, 1e9);
  reader.number("checkpoint_every_seconds", job.checkpoint_every_seconds, 0, 1e9);
  reader.whole("checkpoint_every_steps", job.checkpoint_every_steps, 0, 1'000'000'000);
  reader.whole("pause_after_steps", job.pause_after_steps, 0, 1'000'000'000);
  reader.whole("log_every_steps", job.log_every_steps, 1, 1'000'000'000);
  reader.flag("resume", job.resume);
  reader.flag("export_merged", job.export_merged);
  reader.flag("export_hugging_face", job.export_hugging_face);
  TAILOR_CHECK(reader.read(value));
  if (value.contains("settings")) TAILOR_CHECK(refuse_foreign_settings(value["settings"], job, *method, where));
  if (job.method == "features" && job.head.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: method features answers by the head that it is given, and 'head' is missing", where),
                 "name one, or train it with method head"};
  }
  if (!job.adapter.empty()) {
    if (!learns_low_rank(job, *method)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: 'adapter' means nothing to method {}", where, job.method),
                   "a low-rank adapter is gone on with by method lora"};
    }
    TAILOR_TRY(const AdapterFile adapter, AdapterFile::open(job.adapter));
    const Json settings = value.value("settings", Json::object());
    TAILOR_CHECK(take_adapter_settings(adapter, settings.value("lora", Json::object()), where, job));
  }
  TAILOR_CHECK(check_metric(job, where));
  if ((wants_targets(job.task) || wants_tokens(job.task)) &&
      (job.method == "contrastive" || job.method == "features" || job.method == "distill")) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: method {} is for one label a row, not for {}", where, job.method, to_string(job.task)),
        "method head trains the output layer alone"};
  }
  if (job.export_hugging_face && (!for_encoders(job.task) || method->family == MethodFamily::kAdapter ||
                                  job.method == "head" || job.method == "features" || job.method == "contrastive")) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: export_hugging_face writes a tuned encoder of transformers' shape, which method {} "
                             "for {} does not make",
                             where, job.method, to_string(job.task)),
                 "leave it out"};
  }
  for (const auto& [name, given] : {std::pair{"base", &job.base}, {"tokens", &job.tokens}, {"out", &job.out}}) {
    if (given->empty())
      return Error{ErrorCode::kInvalidArgument, fmt::format("{}: '{}' is missing", where, name),
                   "docs/TUNE_JOB.md shows a job"};
  }
  return job;
}

Json settings_json(const Job& job) {
  const Settings& s = job.settings;
  Json out = {{"learning_rate", s.learning_rate},
              {"head_learning_rate", s.head_learning_rate},
              {"epochs", s.epochs},
              {"max_steps", s.max_steps},
              {"batch_size", s.batch_size},
              {"micro_batch_tokens", s.micro_batch_tokens},
              {"weight_decay", s.weight_decay},
              {"warmup_ratio", s.warmup_ratio},
              {"schedule", name_of(kSchedules, s.schedule)},
              {"beta1", s.beta1},
              {"beta2", s.beta2},
              {"epsilon", s.epsilon},
              {"dropout", s.dropout},
              {"hidden_dropout", s.hidden_dropout},
              {"label_smoothing", s.label_smoothing},
              {"max_grad_norm", s.max_grad_norm},
              {"ema_decay", s.ema_decay},
              {"head_init_std", s.head_init_std},
              {"pooling", name_of(kPoolings, s.pooling)}};
  const Method* method = find_method(job.method);
  const bool distills = job.method == "distill";
  if (method != nullptr && learns_low_rank(job, *method)) {
    out["lora"] = {{"r", s.lora.r},
                   {"alpha", s.lora.alpha},
                   {"dropout", s.lora.dropout},
                   {"target_modules", s.lora.target_modules},
                   {"rslora", s.lora.rslora},
                   {"dora", s.lora.dora},
                   {"pissa", s.lora.pissa},
                   {"b_rate_scale", s.lora.b_rate_scale}};
    if (!s.lora.modules_to_save.empty()) out["lora"]["modules_to_save"] = s.lora.modules_to_save;
    if (!s.lora.trained_tokens.empty()) out["lora"]["trained_tokens"] = s.lora.trained_tokens;
  }
  if (method != nullptr && method->family == MethodFamily::kAdapter)
    out["adapter"] = {{"size", s.adapter.size}, {"scale", s.adapter.scale}};
  if (method != nullptr && method->family == MethodFamily::kSoftPrompt) {
    out["soft_prompt"] = {{"tokens", s.soft_prompt.tokens},
                          {"hidden", s.soft_prompt.hidden},
                          {"encoder", name_of(kSoftEncoders, s.soft_prompt.encoder)},
                          {"init", name_of(kSoftInits, s.soft_prompt.init)},
                          {"reparameterise", s.soft_prompt.reparameterise},
                          {"start", s.soft_prompt.start}};
  }
  if (distills && job.task != Task::kCausalLm)
    out["distill"] = {{"temperature", s.distill.temperature}, {"alpha", s.distill.alpha}};
  if (job.method == "contrastive") {
    out["temperature"] = s.temperature;
    out["hard_negatives"] = s.hard_negatives;
  }
  if (job.method == "upper-layers") out["upper_layers"] = s.upper_layers;
  if (freezes_matrices(job)) out["dtype"] = name_of(kDtypes, s.dtype);
  if (trains_layers(job)) out["activation_checkpointing"] = s.activation_checkpointing;
  return out;
}

}  // namespace tailor::tune
