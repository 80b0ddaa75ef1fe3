#pragma once
/// The report's charts as inline SVG. Colours by class names of report_style.cpp.

#include <string>

#include "fit/report_input.h"

namespace tailor {

enum class CostAxis { kCostPerThousand, kTrainSeconds };

/// Quality (with intervals) against cost on a logarithmic axis, one mark a candidate. Empty where fewer than
/// two candidates were scored.
std::string quality_chart(const ReportInput& input, CostAxis axis, double width, double height);

/// Confidence against accuracy in bins, with the number of rows below.
std::string reliability_chart(const Predictions& predictions, int bins);

/// Accuracy of the answers given against the share of messages handed to a person.
std::string hand_over_chart(const Predictions& predictions);

/// True classes as rows, predicted as columns; counts as shades, written out where there is room.
std::string confusion_chart(const ReportInput& input, const Predictions& predictions);

/// Validation scores of the settings that were searched, on a scale that is common to all candidates; the best is
/// filled.
std::string search_chart(const TrialRecord& trial, double low, double high);

/// Estimate and interval on a common scale, for a cell of the table.
std::string interval_chart(const Interval& interval, double low, double high, bool accent);

/// The colour class and the marker's shape of a trial: "s-frozen" and 'o'.
std::string series_class(const ReportInput& input, const TrialRecord& trial);
char series_shape(const ReportInput& input, const TrialRecord& trial);

}  // namespace tailor
