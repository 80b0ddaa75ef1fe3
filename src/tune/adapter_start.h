#pragma once
/// A low-rank adapter that a job goes on with (Job::adapter), from PEFT's directory or from llama.cpp's GGUF file.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "tune/decoder_config.h"
#include "tune/settings.h"
#include "tune/weights.h"

namespace tailor::tune {

/// Key of an adapter's metadata: which model it was trained on, as identity_of() has it. Others than Tailor leave it
/// out.
inline constexpr const char* kAdapterBase = "tailor_base";
/// Of the base's vectors (norms, biases), which every quantisation of a model leaves as they are: two trained models
/// differ in them, two files of one model do not.
std::string identity_of(const BaseWeights& base);

/// What stands in the directory or file. All f32.
struct AdapterFile {
  struct Module {
    std::string name;      // Hugging Face's path, or "blk.0.attn_q"
    at::Tensor a, b;       // [r, in], [out, r]
    at::Tensor magnitude;  // [out]: DoRA; undefined: none
  };
  struct Whole {
    std::string name;  // "model.embed_tokens.weight"
    at::Tensor value;
  };
  struct Rows {
    std::string module;  // "model.embed_tokens"
    std::vector<std::int32_t> ids;
    at::Tensor values;  // [ids, width]
  };
  std::filesystem::path path;
  bool of_peft = true;  // names and rows are Hugging Face's; else GGUF's
  std::int64_t rank = 0;
  double alpha = 0, dropout = 0;
  bool rslora = false, dora = false;
  std::vector<std::string> targets;  // as it names them itself
  std::string base;                  // identity_of() its base; empty: it does not say
  std::vector<Module> modules;
  std::vector<Whole> whole;
  std::vector<Rows> rows;

  /// Errors: what core/peft_adapter.h refuses, IA3, modules of different ranks or scales.
  static Result<AdapterFile> open(const std::filesystem::path& path);
  Error unfit(const std::string& what) const;
};

/// The adapter's r, alpha, scaling, targets and modules take the places of the job's own; what `given` (the job's
/// settings.lora) says otherwise is an error that names both.
Status take_adapter_settings(const AdapterFile& file, const Json& given, const std::string& where, Job& job);

/// By GGUF names, rows in GGUF's order.
struct AdapterStart {
  struct Module {
    at::Tensor a, b, magnitude;
  };
  std::map<std::string, Module, std::less<>> modules;    // "blk.0.attn_q"
  std::map<std::string, at::Tensor, std::less<>> whole;  // "token_embd.weight"
  std::map<std::string, at::Tensor, std::less<>> rows;   // the same, [settings.lora.trained_tokens, width]
};
/// Errors: another base, modules that it has not, shapes that do not fit, other targets than the job asks for. What
/// stands behind an encoder is left out.
Result<AdapterStart> decoder_start(const Job& job, const BaseWeights& base, const decoder::DecoderConfig& config,
                                   bool tied);
Result<AdapterStart> encoder_start(const Job& job, const BaseWeights& base);

}  // namespace tailor::tune
