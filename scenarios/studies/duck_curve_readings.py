"""How the duck-curve paper is read where it leaves something open, for the page and for whoever asks."""

READINGS: tuple[tuple[str, str], ...] = (
    (
        "Node numbers",
        "The paper numbers nodes from 1 without a map. Here they go depth first from the head, laterals "
        "before the main line goes on: 3 to 6 are buses 806, 808, 810, 812; 19 to 21 are 852, 832, 888; 26 "
        "and 27 are 844 and 846. The customers of bus 890 are connected at 888, on the secondary side of "
        "their transformer: with 890 as one node with 888 there are 33 nodes, and head and clusters taken "
        "off, the 26 agents that the paper counts; the clusters hang together, and the hospital and the "
        "school stand where the two largest loads are. At the end of its 4.16 kV line bus 890 could not be "
        "supplied: 450 kW is its average here, not its peak.",
    ),
    (
        "Loads",
        "Published loads, spot and distributed, are the average of the day; a load between two phases is "
        "halved. All take constant power at a power factor of 0.95, whatever the voltage.",
    ),
    (
        "Homes and businesses",
        "“By matching the load levels”: hospital, school and four homes are where the paper has them; each of"
        " the other five commercial kinds is the bus whose average is nearest to that building's own, by "
        "ratio, one bus a kind; all others are homes. The reading “by size” makes every bus above 30 kW a "
        "business.",
    ),
    (
        "Shapes",
        "Commercial reference buildings in San Francisco on the day itself; homes are the mean of one "
        "modelled home over the 31 days around it, for one home is not many. Each is scaled to a daily mean "
        "of 1.",
    ),
    (
        "The day",
        "31 March of the typical year, the date of the duck chart of the California ISO, which the paper "
        "cites; a Friday in the calendar of the buildings. Hours are standard time: 15:00 here is 4 pm on the"
        " clock.",
    ),
    (
        "Photovoltaics",
        "38 % of each bus's average load as nameplate at that bus, on its phases; panels at 20 degrees to the"
        " south on the weather of that day. No curtailment. In C inverters may go down to a power factor of "
        "0.8.",
    ),
    (
        "Flexible loads",
        "The share of cooling in the load of an all-electric home, by month and hour, of homes only; shed "
        "load is not made up for, and its reactive power stays. Shifts are drawn for each bus: in time with a"
        " variance of 0.075 h², in size by a factor with a variance of 0.1.",
    ),
    (
        "Batteries",
        "Power and energy are swapped in the text: the states of charge say 450, 540 and 800 kWh, so ratings "
        "are 120, 200 and 185 kW. The printed balance is of the storage's side, which loses nothing at the "
        "grid; here the grid sees discharge less charge, and the stored energy grows by 0.95 of what is "
        "charged and falls by discharge over 0.95; no self-discharge. The lowest states of charge of the "
        "paper, 45, 0 and 160 kWh, are the lower limits. No battery charges and discharges at once.",
    ),
    (
        "The end of the day",
        "Every day ends with the energy of the middle case at least, 120, 400 and 400 kWh, wherever it began:"
        " the paper's final states are alike and not zero, and no condition of its text would make them so.",
    ),
    (
        "Ramping",
        "The sum over the day of the absolute change from hour to hour. The day repeats itself: the step from"
        " its last hour to its first counts too, or the ramp would be moved to midnight and out of sight. As "
        "in the paper's figures, net load is without losses of lines; C lowers the ramping of the import, "
        "with losses, and both are reported. The evening ramp is that of the hour in which it is largest "
        "without control.",
    ),
    (
        "Agents for themselves",
        "Lowest peak of the own net load. What is open beyond that is settled by moving devices least, and in"
        " another case by buying least energy.",
    ),
    (
        "Network-aware control",
        "Limits of 0.95 to 1.05 p.u. at every bus and phase. A marginal cost that rises to 2 % of the price "
        "of ramping at a device's limit decides between dispatches of equal ramping. Regulators stand where "
        "their relays would put them at the dispatch itself. 1,000 iterations are shown beside our stopping "
        "rule.",
    ),
)
