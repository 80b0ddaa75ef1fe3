#pragma once
/// The verbs of the command line. Each adds its sub-command and, when it was named, leaves what to run.

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "core/cancel.h"
#include "core/result.h"

namespace tailor {

struct Invocation {
  std::string command_line;          // as typed, for reports
  CancelToken& cancel;               // set by SIGINT and SIGTERM
  std::function<Result<int>()> run;  // of the verb that was named; gives the exit code
};

void add_fit(CLI::App& app, Invocation& invocation);
void add_tune(CLI::App& app, Invocation& invocation);
void add_config(CLI::App& app, Invocation& invocation);
void add_advise(CLI::App& app, Invocation& invocation);
void add_predict(CLI::App& app, Invocation& invocation);
void add_generate(CLI::App& app, Invocation& invocation);
void add_serve(CLI::App& app, Invocation& invocation);
void add_keys(CLI::App& app, Invocation& invocation);
void add_packages(CLI::App& app, Invocation& invocation);
void add_audit(CLI::App& app, Invocation& invocation);
void add_top(CLI::App& app, Invocation& invocation);
void add_compare(CLI::App& app, Invocation& invocation);
void add_models_optimize(CLI::App& models, Invocation& invocation);  // of add_models()
void add_models(CLI::App& app, Invocation& invocation);
void add_doctor(CLI::App& app, Invocation& invocation);
void add_completion(CLI::App& app, Invocation& invocation);
void add_trial(CLI::App& app, Invocation& invocation);  // hidden: the process of one phase of a trial

}  // namespace tailor
