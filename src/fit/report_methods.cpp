#include "fit/candidates.h"
#include "fit/report_input.h"

namespace tailor {

std::map<std::string, MethodText> describe_methods() {
  std::map<std::string, MethodText> methods;
  for (const Candidate& c : candidate_table()) {
    const auto family = c.role == ModelRole::kNone ? MethodText::Family::kNoModel
                        : c.trains_network         ? MethodText::Family::kTrained
                                                   : MethodText::Family::kFrozen;
    methods[std::string(c.method)] = {std::string(c.title), std::string(c.changes), family};
  }
  return methods;
}

}  // namespace tailor
