#include "tune/checkpoint.h"

#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <cstring>

#include "core/files.h"
#include "core/json.h"
#include "core/safetensors.h"

namespace tailor::tune {
namespace {

constexpr const char* kFormat = "tailor-tune-checkpoint";
constexpr const char* kVersion = "1";

/// `t` is of the processor.
SafeTensor flat(const char* name, const at::Tensor& t) {
  return safe_tensor<float>(name, "F32", {t.numel()},
                            std::span<const float>(t.data_ptr<float>(), static_cast<std::size_t>(t.numel())));
}

Error other(const std::filesystem::path& file, const std::string& what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{} cannot be resumed: {}", file.string(), what),
          "use the job that made it, or another output directory"};
}

Result<SafeTensor> flat_of(const SafetensorsFile& file, const char* name, std::int64_t elements) {
  TAILOR_TRY(SafeTensor tensor, file.get(name, "F32", 1));
  if (tensor.shape[0] != elements) {
    return other(file.path(), fmt::format("it holds {} numbers, this job trains {}", tensor.shape[0], elements));
  }
  return tensor;
}

void copy_to(const SafeTensor& from, const at::Tensor& to) {
  at::Tensor target = to;
  target.copy_(at::from_blob(const_cast<char*>(from.bytes.data()), to.sizes(), at::kFloat));
}

std::string meta(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? std::string() : found->second;
}

Status check_format(const SafetensorsFile& file) {
  if (meta(file, "format") != kFormat || meta(file, "version") != kVersion) {
    return other(file.path(), fmt::format("expected format '{}' version {}, found '{}' version '{}'", kFormat, kVersion,
                                          meta(file, "format"), meta(file, "version")));
  }
  return {};
}

}  // namespace

std::filesystem::path checkpoint_file(const std::filesystem::path& out) {
  return out / "checkpoint" / "state.safetensors";
}
std::filesystem::path best_file(const std::filesystem::path& out, std::int64_t step) {
  return out / "checkpoint" / fmt::format("best-{}.safetensors", step);
}

Status remove_other_best_files(const std::filesystem::path& out, std::int64_t step_to_keep) {
  const std::string keep = best_file(out, step_to_keep).filename().string();
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(out / "checkpoint", error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("best-") && name != keep) TAILOR_CHECK(remove_tree(entry.path()));
  }
  return {};
}

Status write_checkpoint(const std::filesystem::path& file, const ParameterSet& parameters, const AdamW& optimiser,
                        const WeightAverage& average, const Json& state, const std::string& fingerprint) {
  std::vector<at::Tensor> alive;  // copies, where the device has a memory of its own
  std::vector<SafeTensor> tensors;
  const auto add = [&](const char* name, const at::Tensor& values) {
    alive.push_back(values.cpu());
    tensors.push_back(flat(name, alive.back()));
  };
  add("values", parameters.flat_values());
  if (optimiser.steps() > 0) {  // before the first step the moments are zero
    add("first_moment", optimiser.first_moment());
    add("second_moment", optimiser.second_moment());
  }
  const bool averaged = average.on() && average.updates() > 0;
  if (averaged) add("average", average.values());
  Json whole = state;
  whole["optimiser_steps"] = optimiser.steps();
  whole["decay"] = optimiser.decay();
  if (averaged) whole["average"] = Json{{"updates", average.updates()}, {"untrained", average.untrained()}};
  return write_safetensors(
      file, tensors,
      {{"format", kFormat}, {"version", kVersion}, {"fingerprint", fingerprint}, {"state", dump_json(whole)}});
}

Result<Json> read_checkpoint(const std::filesystem::path& path, ParameterSet& parameters, AdamW& optimiser,
                             WeightAverage& average, const std::string& fingerprint) {
  TAILOR_TRY(const SafetensorsFile file, SafetensorsFile::open(path));
  TAILOR_CHECK(check_format(file));
  if (meta(file, "fingerprint") != fingerprint)
    return other(path, "it belongs to another job (model, data or settings differ)");
  TAILOR_TRY(const Json state, parse_json(meta(file, "state"), path.string() + " (state)"));
  if (!state.is_object() || !state.contains("optimiser_steps") || !state.contains("decay")) {
    return other(path, "its state is incomplete");
  }
  const std::int64_t n = parameters.element_count();
  TAILOR_TRY(const SafeTensor values, flat_of(file, "values", n));
  const auto steps = state["optimiser_steps"].get<std::int64_t>();
  if (steps > 0) {
    TAILOR_TRY(const SafeTensor m, flat_of(file, "first_moment", n));
    TAILOR_TRY(const SafeTensor v, flat_of(file, "second_moment", n));
    copy_to(m, optimiser.first_moment());
    copy_to(v, optimiser.second_moment());
  } else {
    optimiser.first_moment().zero_();
    optimiser.second_moment().zero_();
  }
  average.restore(0, 1);
  if (average.on() && state.contains("average")) {
    TAILOR_TRY(const SafeTensor averaged, flat_of(file, "average", n));
    copy_to(averaged, average.values());
    const Json& of = state["average"];
    average.restore(of.at("updates").get<std::int64_t>(), of.at("untrained").get<double>());
  }
  copy_to(values, parameters.flat_values());
  optimiser.set_steps(steps);
  optimiser.set_decay(state["decay"].get<double>());
  return state;
}

Status write_values(const std::filesystem::path& file, const ParameterSet& parameters, double decay) {
  const at::Tensor on_cpu = parameters.flat_values().cpu();
  const SafeTensor values[] = {flat("values", on_cpu)};
  return write_safetensors(file, values,
                           {{"format", kFormat}, {"version", kVersion}, {"decay", fmt::format("{:.17g}", decay)}});
}

Result<double> read_values(const std::filesystem::path& path, ParameterSet& parameters) {
  TAILOR_TRY(const SafetensorsFile file, SafetensorsFile::open(path));
  TAILOR_CHECK(check_format(file));
  TAILOR_TRY(const SafeTensor values, flat_of(file, "values", parameters.element_count()));
  copy_to(values, parameters.flat_values());
  return std::strtod(meta(file, "decay").c_str(), nullptr);
}

}  // namespace tailor::tune
