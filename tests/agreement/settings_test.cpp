/// `tailor` knows the settings of a job from a table of its own (src/config), since it does not link tailor-tune. Here
/// both are held together: names, ranges, methods, and which setting means something to which method.

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "config/setting.h"
#include "core/json.h"
#include "tune/job.h"
#include "tune/methods.h"

namespace tailor {
namespace {

Json job_of(std::string_view method, bool encoder) {
  return Json{{"format", "tailor-tune-job"},
              {"version", 1},
              {"method", method},
              {"task", encoder               ? "sequence-classification"
                       : method == "distill" ? "causal-lm-labels"
                                             : "causal-lm"},
              {"base", "b"},
              {"tokens", "t"},
              {"out", "o"},
              {"head", "h"}};
}
bool accepts(const Json& job) {
  return tune::parse_job(job, "job", "/").has_value();
}
bool of_the_job(const Setting& setting) {
  return setting.target.starts_with("/settings/") || setting.target.starts_with("/job/");
}
/// Where the value stands in job.json.
Json with(Json job, const Setting& setting, const Json& value) {
  const bool inner = setting.target.starts_with("/settings/");
  job[Json::json_pointer(std::string(inner ? setting.target : setting.target.substr(4)))] = value;
  return job;
}
/// A value that is allowed.
Json usual(const Setting& s) {
  switch (s.kind) {
    case ValueKind::kNumber:
      return s.open_high && s.high == 1 ? 0.25 : std::max(s.low, 1.0);
    case ValueKind::kWhole:
      return static_cast<std::int64_t>(std::max(s.low, 1.0));
    case ValueKind::kFlag:
      return true;
    case ValueKind::kChoice:
      return s.choices.front();
    case ValueKind::kWholes:
      return Json::array({1, 2});
    default:
      return Json::array({"all-linear"});
  }
}
/// A method that the setting means something to.
std::string_view method_for(const Setting& s) {
  for (const MethodPart& method : method_parts()) {
    if (method.method != "features" && means_something(s, method, ModelSort::kUnknown)) return method.method;
  }
  return "";
}

TEST(SettingsAgreement, MethodsAreTheSame) {
  ASSERT_EQ(method_parts().size(), tune::methods().size());
  for (const tune::Method& method : tune::methods()) {
    const MethodPart* known = find_method_part(method.name);
    ASSERT_NE(known, nullptr) << method.name << " has no row in src/config/method_parts.cpp";
    EXPECT_EQ(known->encoders, method.encoder != nullptr) << method.name;
    EXPECT_EQ(known->decoders, method.decoder != nullptr) << method.name;
  }
}

TEST(SettingsAgreement, BothSayTheSameOfWhatMeansNothing) {
  for (const MethodPart& method : method_parts()) {
    if (method.method == "features") continue;  // it trains nothing; `tailor` refuses more of it
    for (const bool encoder : {true, false}) {
      if (encoder ? !method.encoders : !method.decoders) continue;
      ASSERT_TRUE(accepts(job_of(method.method, encoder)));
      for (const Setting& setting : tune_settings()) {
        if (!of_the_job(setting)) continue;
        const bool excluded = (setting.key == "lora.pissa" && method.method == "dora") ||
                              (setting.key == "lora.dora" && method.method == "pissa") ||
                              (setting.key == "lora.dropout" && method.method == "distill" && !encoder);
        if (excluded) continue;  // by each other, see check_together(); by labels, which distill scores twice
        const bool here = means_something(setting, method, encoder ? ModelSort::kEncoder : ModelSort::kDecoder);
        EXPECT_EQ(accepts(with(job_of(method.method, encoder), setting, usual(setting))), here)
            << setting.key << ", method " << method.method << (encoder ? ", encoder" : ", decoder");
      }
    }
  }
}

TEST(SettingsAgreement, RangesAreTheSame) {
  for (const Setting& s : tune_settings()) {
    if (!of_the_job(s)) continue;
    const std::string_view method = method_for(s);
    const bool encoder = find_method_part(method)->encoders;
    const auto check = [&](const Json& value, bool allowed) {
      EXPECT_EQ(accepts(with(job_of(method, encoder), s, value)), allowed) << s.key << " " << value.dump();
    };
    if (s.kind == ValueKind::kNumber) {
      check(s.low, !s.open_low);
      check(s.low - 1e-3, false);
      check(s.high, !s.open_high);
      check(s.high * 1.001, false);
    } else if (s.kind == ValueKind::kWhole) {
      check(static_cast<std::int64_t>(s.low), true);
      check(static_cast<std::int64_t>(s.low) - 1, false);
      check(static_cast<std::int64_t>(s.high), true);
      check(static_cast<std::int64_t>(s.high) + 1, false);
    } else if (s.kind == ValueKind::kChoice) {
      for (const auto choice : s.choices) check(choice, true);
      check("no-such-choice", false);
    }
    check(Json::object({{"no", "value"}}), false);
  }
}

TEST(SettingsAgreement, EverySettingOfAJobHasARow) {
  std::set<std::string> targets;
  for (const Setting& setting : tune_settings()) targets.insert(std::string(setting.target));
  for (const MethodPart& method : method_parts()) {
    const auto job = tune::parse_job(job_of(method.method, method.encoders), "job", "/");
    ASSERT_TRUE(job) << method.method;
    const nlohmann::json flat = nlohmann::json(tune::settings_json(*job)).flatten();
    for (const auto& [pointer, value] : flat.items()) {
      std::string name = "/settings" + pointer;
      while (!targets.contains(name) && name.find_last_of('/') > 9) name.resize(name.find_last_of('/'));  // lists
      EXPECT_TRUE(targets.contains(name)) << pointer << " has no row in src/config/tune_settings.cpp";
    }
  }
}

}  // namespace
}  // namespace tailor
