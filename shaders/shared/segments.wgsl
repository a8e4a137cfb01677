// Weights whose rows lie one after the other: up to seven, of which each but the last ends before row ENDs; and the
// mixture that each of them takes, the first one mixture 0.
override END0: u32;
override END1: u32;
override END2: u32;
override END3: u32;
override END4: u32;
override END5: u32;
override FROM1: u32;
override FROM2: u32;
override FROM3: u32;
override FROM4: u32;
override FROM5: u32;
override FROM6: u32;

// Its first row, how many there are, and its mixture.
struct Segment { first: u32, rows: u32, mixture: u32 }

fn segment_of(row: u32, all: u32) -> Segment {
    if row < END0 { return Segment(0u, END0, 0u); }
    if row < END1 { return Segment(END0, END1 - END0, FROM1); }
    if row < END2 { return Segment(END1, END2 - END1, FROM2); }
    if row < END3 { return Segment(END2, END3 - END2, FROM3); }
    if row < END4 { return Segment(END3, END4 - END3, FROM4); }
    if row < END5 { return Segment(END4, END5 - END4, FROM5); }
    return Segment(END5, all - END5, FROM6);
}
